from pathlib import Path

import pytest

from teleflm.files import write_whole


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
