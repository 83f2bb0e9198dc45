"""What a case of bad input may use, and how it spoils it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
import zstandard

from teleflm.checkpoint.manifest import MANIFEST
from teleflm.data.indexed import IndexedWriter
from tests.tiny import run_fields, write_run


class Scene(NamedTuple):
    """What a case may use: folders to read from, and one to spoil."""

    tmp: Path
    corpus: Path
    tokenizer: Path
    store: Path
    run: Path
    grown: Path
    other: Path

    def file(self, name: str, content: bytes) -> Path:
        path = self.tmp / name
        path.write_bytes(content)
        return path

    def hosts(self, number: int) -> Path:
        records = ({"text": "a b", "metadata": {"domain": f"site{i}"}} for i in range(number))
        return self.file("web.jsonl", "\n".join(map(json.dumps, records)).encode())

    def link(self, name: str, target: str) -> Path:
        path = self.tmp / name
        path.symlink_to(target)
        return path

    def run_yaml(self, **sections: Any) -> Path:
        fields = run_fields(self.store, self.tmp / "run", **sections)
        return write_run(self.tmp / "run.yaml", fields)

    def copy(self, path: Path) -> Path:
        shutil.copytree(path, self.tmp / "copy")
        return self.tmp / "copy"

    def tokens(self, *ids: int) -> dict[str, Any]:
        with IndexedWriter(self.tmp / "tokens", "uint16") as writer:
            writer.add(ids * 20)
        return {"path": {"x": [str(self.tmp / "tokens"), 1.0]}}

    def series_yaml(self, **fields: Any) -> Path:
        path = self.tmp / "series.yaml"
        path.write_text(yaml.safe_dump({"series_dir": str(self.tmp / "series"), **fields}))
        return path


ZST = zstandard.compress(b'{"text": "a b c"}\n' * 400)
Case = tuple[Callable[[Scene], tuple[object, ...]], str]


def tokenize(
    make: Callable[[Scene], Path], *options: object
) -> Callable[[Scene], tuple[object, ...]]:
    verb = ("tokenizer", "train", "--vocab-size", 364, *options)
    return lambda s: (*verb, "--out", s.tmp / "out", make(s))


def prepare(
    make: Callable[[Scene], Path], *options: object
) -> Callable[[Scene], tuple[object, ...]]:
    return lambda s: (
        "data",
        "prepare",
        "--tokenizer",
        s.tokenizer,
        "--out",
        s.tmp / "out",
        *options,
        make(s),
    )


def damaged(s: Scene) -> Path:
    copy = s.copy(s.grown)
    file = next(copy.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    return copy


def without_manifest(s: Scene) -> Path:
    copy = s.copy(s.grown)
    (copy / MANIFEST).write_text("{")
    return copy


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-2])
    return path
