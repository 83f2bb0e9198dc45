"""A run goes on over the text it was trained on, known by its content, or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.manifest import MANIFEST, read_manifest
from teleflm.data.indexed import IndexedWriter
from teleflm.data.mixture import open_domains
from teleflm.data.store import TokenStore, prepare
from teleflm.errors import ConfigError, DataError
from teleflm.files import read_jsonl
from teleflm.parallel.ranks import Ranks
from teleflm.training.loop import train
from teleflm.training.same_data import common_sources
from teleflm.training.start import resolve_config
from tests.conftest import Command
from tests.tiny import assert_same_run, cut_back, run_config, run_fields, write_run


@pytest.fixture(scope="module")
def own_store(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(store.path, tmp_path_factory.mktemp("data") / "store"))


@pytest.fixture(scope="module")
def whole(own_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps over that store."""
    return train(run_config(own_store, tmp_path_factory.mktemp("runs") / "whole"))


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """The same, as a crash at step 4 leaves it."""
    return cut_back(whole, tmp_path / "half", 4)


def rewritten(source: Path, to: Path, change: Callable[[Any], Any]) -> None:
    """A pair of token files with other tokens in one sequence."""
    dtype = np.dtype("<u2")
    tokens = np.fromfile(f"{source}.bin", dtype)
    with IndexedWriter(to, dtype) as writer:
        writer.add(change(tokens))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tokens: np.where(np.arange(tokens.size) == 99, 41, tokens), "as many tokens, but"),
        (lambda tokens: tokens[::-1], "as many tokens, but others"),
        (lambda tokens: tokens[:-5], r"domain 'code' has [\d,]+ tokens there, [\d,]+ here"),
    ],
)
def test_other_tokens_are_refused(
    half: Path, own_store: Path, tmp_path: Path, change: Callable[[Any], Any], told: str
) -> None:
    other = Path(shutil.copytree(own_store, tmp_path / "other"))
    rewritten(own_store / "code", other / "code", change)
    content = json.loads((other / "store.json").read_text(encoding="utf-8"))
    content["domains"]["code"]["tokens"] = (other / "code.bin").stat().st_size // 2
    (other / "store.json").write_text(json.dumps(content), encoding="utf-8")
    before = (half / "metrics.jsonl").read_bytes()
    with pytest.raises(DataError, match=f"{told}.*start_from={half}") as refused:
        train(run_config(other, half))
    assert refused.value.exit_code == 2
    assert (half / "metrics.jsonl").read_bytes() == before


def test_a_store_made_again_at_its_path(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "store", tmp_path / "run"
    prepare([corpus / "english.jsonl"], tokenizer_dir, out, held_out=0.1)
    train(run_config(out, run, training={"steps": 2}))
    # The same text again is the same data.
    prepare([corpus / "english.jsonl"], tokenizer_dir, out, held_out=0.1, force=True)
    train(run_config(out, run, training={"steps": 3}))
    prepare([corpus / "chinese.jsonl"], tokenizer_dir, out, held_out=0.1, force=True)
    with pytest.raises(DataError, match="domains 'english' there, 'chinese' here"):
        train(run_config(out, run, training={"steps": 4}))
    # Another share held out is other training text.
    prepare([corpus / "english.jsonl"], tokenizer_dir, out, held_out=0.3, force=True)
    with pytest.raises(DataError, match="domain 'english' has"):
        train(run_config(out, run, training={"steps": 4}))
    # The way out that the message tells.
    fields = run_fields(out, tmp_path / "next", training={"steps": 4}, start_from=str(run))
    del fields["model"]
    following = train(resolve_config(fields, "next"))
    assert "held-out" not in capsys.readouterr().err
    lineage = read_manifest(find_checkpoint(following)).lineage
    assert [event.operator for event in lineage] == ["init", "continue"]


def test_the_same_data_elsewhere(half: Path, whole: Path, own_store: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(own_store, tmp_path / "moved"))
    counts = {name: counts.tokens for name, counts in TokenStore(moved).domains.items()}
    # A store, its domains, Megatron's pairs in it, and pairs of another type of tokens.
    with IndexedWriter(tmp_path / "wide", np.int32) as writer:
        writer.add(np.fromfile(moved / "code.bin", "<u2"))
    for suffix in (".bin", ".idx"):
        shutil.copy(moved / f"code.held-out{suffix}", tmp_path / f"wide.held-out{suffix}")
    sources = {"chinese": moved, "english": moved / "english", "code": tmp_path / "wide"}
    path = {name: [str(source), counts[name] / 2] for name, source in sources.items()}
    data = {"path": path, "tokenizer": str(moved)}
    resumed = train(run_config(moved, half, data=data))
    assert_same_run(resumed, whole)


def test_other_weights_are_refused(half: Path, own_store: Path) -> None:
    path = {name: [str(own_store), 1.0] for name in TokenStore(own_store).domains}
    with pytest.raises(DataError, match=r"of every 65,536 sequences domain 'chinese' gives"):
        train(run_config(own_store, half, data={"path": path}))


def test_other_held_out_text_is_told(
    half: Path, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(own_store, tmp_path / "other"))
    rewritten(own_store / "code.held-out", other / "code.held-out", lambda tokens: tokens[::-1])
    train(run_config(other, half))
    assert "the held-out text is not what it was" in capsys.readouterr().err
    # A checkpoint of this start knows it.
    train(run_config(other, half, training={"steps": 7}))
    assert "held-out" not in capsys.readouterr().err


class Two(Ranks):
    """Two ranks, of which the other one finds `theirs`."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self._theirs = theirs

    def gathered(self, action: Callable[[], Any]) -> list[Any]:
        return [action(), self._theirs]


def test_ranks_that_read_something_else(own_store: Path) -> None:
    mixture = open_domains(own_store)
    mine = common_sources(mixture, Ranks())
    assert common_sources(mixture, Two(mine)) == mine
    theirs = {**mine, "code": replace(mine["code"], digest="another")}
    with pytest.raises(DataError, match="rank 1 does not read what rank 0 reads: domain 'code'"):
        common_sources(mixture, Two(theirs))


def test_a_checkpoint_that_does_not_say(
    half: Path, whole: Path, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = find_checkpoint(half) / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    assert sorted(content.pop("data")) == ["chinese", "code", "english"]
    path.write_text(json.dumps(content), encoding="utf-8")
    # Then the path is all there is to compare.
    moved = shutil.copytree(own_store, tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"its run has data\.path = "):
        train(run_config(moved, half))
    train(run_config(own_store, half))
    assert "does not say what data it was trained on" in capsys.readouterr().err
    assert_same_run(half, whole)
    assert read_manifest(find_checkpoint(half)).data is not None
    assert len(read_jsonl(half / "metrics.jsonl")) == 6


@pytest.mark.parametrize("name", ["no", "on", "null", "1", "007", "true"])
def test_a_domain_that_yaml_1_1_would_call_something_else(
    teleflm: Command, own_store: Path, tmp_path: Path, name: str
) -> None:
    run, single = tmp_path / "run", own_store / "code"
    file = tmp_path / "run.yaml"
    fields = run_fields(own_store, run, training={"steps": 1})
    del fields["data"]["path"]
    write_run(file, fields)
    source = f"data.path={{{name}: [{single}, 1]}}"
    assert teleflm("train", file, source, f"data.tokenizer={own_store}").code == 0
    manifest = read_manifest(find_checkpoint(run))
    assert manifest.data is not None and list(manifest.data) == [name]
    # The configuration that the run wrote down is the same one.
    assert teleflm("train", run / "config.yaml", "training.steps=2").code == 0
    text = file.read_text(encoding="utf-8").replace("data:", f"data:\n  path:\n    {name}: [a, 1]")
    file.write_text(text, encoding="utf-8")
    code, _, err = teleflm("train", file)
    assert code == 2 and f"data.path.{name}: a is neither a token store" in err
