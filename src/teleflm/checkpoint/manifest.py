"""The manifest: what a checkpoint says of itself, and the check that it is whole."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from teleflm.config.base import Strict
from teleflm.config.model import ModelConfig
from teleflm.config.run import RunConfig
from teleflm.errors import CheckpointError
from teleflm.growth.event import Event

MANIFEST = "manifest.json"


class FileRecord(Strict):
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


class Manifest(Strict):
    """`manifest.json` of a checkpoint. `config` is the resolved run, None where no run made it."""

    format: Literal[1] = 1
    step: int
    tokens: int
    sequences: int
    flops: int
    adam_steps: int
    model: ModelConfig
    lineage: tuple[Event, ...] = Field(min_length=1)
    config: RunConfig | None
    files: dict[str, FileRecord]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: no checkpoint there, or a damaged manifest.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder}: not a checkpoint (it has no {MANIFEST})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{path}: damaged or of another version ({where}: {first['msg']}); "
            "use another checkpoint of the run"
        ) from None


def manifest_digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's manifest, and so of every byte that it lists."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Size and checksum of every file below `folder`."""
    return {
        str(path.relative_to(folder)): FileRecord(bytes=path.stat().st_size, sha256=_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with a checkpoint's files, a line each; nothing where it is whole.

    Raises:
        CheckpointError: the manifest itself is missing or damaged.
    """
    files = read_manifest(folder).files
    for name, record in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != record.bytes:
            yield f"{path}: {path.stat().st_size} bytes instead of {record.bytes}"
        elif _sha256(path) != record.sha256:
            yield f"{path}: checksum differs, the file was changed"
    # The reader takes tensors from every such file, so a stray copy would be loaded unchecked.
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in files:
            yield f"{path}: not one of the checkpoint's files, move it away"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
