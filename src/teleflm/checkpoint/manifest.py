"""The manifest: what a checkpoint says of itself, and the check that it is whole."""

import hashlib
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from teleflm.config.base import Strict
from teleflm.config.model import ModelConfig
from teleflm.config.run import RunConfig
from teleflm.data.identity import Source
from teleflm.errors import CheckpointError
from teleflm.growth.event import Event
from teleflm.growth.state import Standing

MANIFEST = "manifest.json"


class FileRecord(Strict):
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


class Manifest(Strict):
    """`manifest.json` of a checkpoint. `config` is the resolved run, None where no run made it;
    `data` what that run reads, None too where an earlier version saved it."""

    format: Literal[1] = 1
    step: int
    tokens: int
    sequences: int
    flops: int
    adam_steps: int
    model: ModelConfig
    lineage: tuple[Event, ...] = Field(min_length=1)
    config: RunConfig | None
    data: dict[str, Source] | None = None
    files: dict[str, FileRecord]


def manifest_of(
    standing: Standing,
    config: RunConfig | None,
    files: dict[str, FileRecord],
    data: dict[str, Source] | None = None,
) -> Manifest:
    """The manifest of a state and its files."""
    return Manifest(**vars(standing.standing()), config=config, data=data, files=files)


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
        str(path.relative_to(folder)): record_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def record_file(path: Path) -> FileRecord:
    """Size and checksum of a file."""
    return FileRecord(bytes=path.stat().st_size, sha256=_sha256(path))


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with a checkpoint's files, a line each; nothing where it is whole.

    Raises:
        CheckpointError: the manifest itself is missing or damaged.
    """
    files = read_manifest(folder).files
    yield from checked(folder, files)
    yield from strays(folder, files)


def checked(folder: Path, files: Mapping[str, FileRecord]) -> Iterator[str]:
    """What is wrong with these files, a line each."""

    def check(name: str) -> str | None:
        path, record = folder / name, files[name]
        if (problem := misfit(path, record)) is not None:
            return problem
        return changed(path) if _sha256(path) != record.sha256 else None

    with ThreadPoolExecutor() as pool:
        yield from filter(None, pool.map(check, files))


def misfit(path: Path, record: FileRecord) -> str | None:
    """What can be seen to be wrong with a file without reading it."""
    if not path.is_file():
        return f"{path}: missing"
    if path.stat().st_size != record.bytes:
        return f"{path}: {path.stat().st_size} bytes instead of {record.bytes}"
    return None


def changed(path: Path) -> str:
    """What to say of a file with another checksum than its record's."""
    return f"{path}: checksum differs, the file was changed"


def strays(folder: Path, files: Container[str]) -> Iterator[str]:
    """Files that the reader would take tensors from, and that are none of the checkpoint's."""
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in files:
            yield f"{path}: not one of the checkpoint's files, move it away"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
