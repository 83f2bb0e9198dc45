"""What rooms share: a small corpus of three scripts, a tokenizer and a store made of it, and the
command line in this process."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from teleflm.cli.main import main
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from tests.undrawn import undrawn

# A first example pays for imports and compilation; time says nothing here.
settings.register_profile("teleflm", deadline=None, max_examples=25)
settings.load_profile("teleflm")

ENGLISH = "In the year {0}, the ship number {1} sailed past the old harbour and was seen no more.\n"
CHINESE = "第{0}回，那船在{1}年过了旧港，从此没有人再见过它。\n"
CODE = "def sail_{0}(harbour: int) -> int:\n    return harbour + {1}\n\n"

# Where charts are what is tested, and where a user's whole way is.
DRAWN = {"report", "demo"}


@pytest.fixture(scope="module", autouse=True)
def charts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drawing a run's charts takes three times as long as a tiny run: most reports do without."""
    if request.path.parent.name in DRAWN:
        yield
    else:
        with undrawn():
            yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of english.jsonl, chinese.jsonl and code.txt."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, line in (("english", ENGLISH), ("chinese", CHINESE)):
        documents = ["".join(line.format(i, i * j % 97) for j in range(9)) for i in range(120)]
        records = [json.dumps({"text": text}, ensure_ascii=False) for text in documents]
        (folder / f"{name}.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
    code = "".join(CODE.format(i, i * 7 % 101) for i in range(1500))
    (folder / "code.txt").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer_dir(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 424 tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([corpus], 424, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_dir)


@pytest.fixture(scope="session")
def store(
    corpus: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> TokenStore:
    """A store with a tenth held out."""
    out = tmp_path_factory.mktemp("stores") / "store"
    return prepare([corpus], tokenizer_dir, out, held_out=0.1)


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def teleflm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line as its script starts it, in this process."""

    def command(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["teleflm", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Outcome(end.value.code, *capsys.readouterr())

    return command
