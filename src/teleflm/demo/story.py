"""`teleflm demo`: text, tokenizer, token store, and a short series."""

import shutil
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from teleflm.config.base import build, read_yaml, write_yaml
from teleflm.config.series import SeriesConfig
from teleflm.data.find import find_corpus
from teleflm.data.progress import byte_progress
from teleflm.data.store import prepare
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.demo.corpora import collect
from teleflm.errors import ConfigError
from teleflm.series.run import run_series
from teleflm.training.lock import locked

# A head of 4,096 tokens keeps the embedding small beside the blocks at these widths.
_VOCABULARY = 4096
# At 4,096 tokens no cut is better than another by more than 3 % (docs/log.md); this is the one that
# the demo's learning rates were found with.
_CUT = "smollm"
_HELD_OUT = 0.02
# Tele-FLM reads English and Chinese 2 : 1 and about a tenth of code.
_WEIGHTS = {"english": 0.6, "chinese": 0.3, "code": 0.1}
# Hidden and of a name that nobody else gives: --force removes what lies beside it.
_MARK = ".teleflm-demo.yaml"
_PARTS = (
    *("corpus", "tokenizer", "store", "stages", "grown", "export"),
    *("summary.json", "report.html", "report.png"),
)
_TEMPLATE = "demo.yaml"


def run_demo(data: Sequence[Path], out: Path, *, force: bool = False) -> Path:
    """Tell the whole story in the folder `out`; what is done already is not done again.

    Args:
        data: the user's own text; the built-in corpora where empty.
        out: the demo's folder.
        force: remove an earlier demo there first, and nothing else.

    Returns:
        The series folder.

    Raises:
        ConfigError: `out` holds something that is no demo, or one on other text.
        DataError: text that cannot be had or read.
        RunLockedError: another process tells it there.
    """
    find_corpus(data)  # what is not there is said before anything is removed
    mark = out / _MARK
    if out.exists() and any(out.iterdir()) and not mark.exists():
        raise ConfigError(f"{out}: not empty and no earlier demo; give another --out")
    config = _series(data, out)
    with locked(out):
        if force:
            _remove_demo(data, out)
        if mark.exists() and read_yaml(mark) != config.model_dump(mode="json"):
            raise ConfigError(
                f"{out}: holds a demo on other text or by another version; give another --out, or "
                "--force to start over"
            )
        # Written first, so that an interrupted demo is known as one.
        write_yaml(mark, config)
        _prepare(data, out)
    return run_series(config)


def _remove_demo(data: Sequence[Path], out: Path) -> None:
    """Remove what a demo made, its mark last: killed in between, it is still known as one."""
    parts = [out / name for name in (*_PARTS, _MARK)]
    for path in data:
        inside = next((part for part in parts if path.resolve().is_relative_to(part.resolve())), "")
        if inside:
            raise ConfigError(f"{path}: lies in {inside}, which --force removes; move it away")
    for part in parts:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def _series(data: Sequence[Path], out: Path) -> SeriesConfig:
    template = read_yaml(Path(str(resources.files("teleflm.demo") / _TEMPLATE)))
    template["series_dir"] = str(out)
    store = str(out / "store")
    path = store if data else {name: [store, weight] for name, weight in _WEIGHTS.items()}
    template["run"]["data"]["path"] = path
    if data:
        template["title"] += ", on " + ", ".join(str(path) for path in data)
    return build(SeriesConfig, template, "the demo's series")


def _prepare(data: Sequence[Path], out: Path) -> None:
    tokenizer, store = out / "tokenizer", out / "store"
    if store.exists():
        return
    paths = list(data) or list(collect(out / "corpus").values())
    if not (tokenizer / "tokenizer.json").exists():
        _say(f"tokenizer: learning {_VOCABULARY:,} tokens")
        with byte_progress("reading, then learning", find_corpus(paths).bytes) as progress:
            train_tokenizer(paths, _VOCABULARY, tokenizer, cut=_CUT, progress=progress)
    _say("tokens: preparing the store")
    with byte_progress("preparing", find_corpus(paths).bytes) as progress:
        prepare(paths, tokenizer, store, held_out=_HELD_OUT, progress=progress)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
