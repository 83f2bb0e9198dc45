"""A name never stands for half of something, and records are read whole or named."""

from pathlib import Path

import pytest

from teleflm.errors import DataError, MachineError, RunLockedError
from teleflm.files import naming_full_disk, read_jsonl, write_whole, written_aside


def test_content_is_written_as_it_is(tmp_path: Path) -> None:
    write_whole(tmp_path / "x", "壹\r\n")
    assert (tmp_path / "x").read_bytes() == "壹\r\n".encode()


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "a" * 100_000 + "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: seen.append(path.read_text()))
    write_whole(path, "new")
    assert seen == ["old", "new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    for content in ("one", "two"):
        with written_aside(folder) as partial:
            (partial / "file").write_text(content)
        assert (folder / "file").read_text() == content
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("nth", [1, 2])
def test_a_failed_rename_gives_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    folder, real, calls = tmp_path / "x", Path.rename, []
    folder.mkdir()
    (folder / "file").write_text("old")

    def rename(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", rename)
        with written_aside(folder) as partial:
            (partial / "file").write_text("new")
    assert (folder / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_two_writers_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    with (
        written_aside(tmp_path / "x") as partial,
        pytest.raises(RunLockedError, match="another process is writing"),
        written_aside(tmp_path / "x"),
    ):
        pass
    assert not partial.exists()


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"metrics: not written \(No space left"):  # noqa: SIM117
        with naming_full_disk(tmp_path / "metrics"):
            raise RuntimeError("inside a library: No space left on device (os error 28)")


@pytest.mark.parametrize("line", [b"{", b"[1]", b"3", b"null", b"\xff"])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x").write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match="x, line 2: damaged"):
        read_jsonl(tmp_path / "x")
