from pathlib import Path

import pytest

from teleflm.data.find import find_corpus
from teleflm.errors import DataError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    return folder


def found(*paths: Path) -> list[str]:
    return [file.path.name for file in find_corpus(paths).files]


def test_every_kind_is_found_and_the_rest_is_named_by_kind(tmp_path: Path) -> None:
    read = ("a.txt", "b.MD", "c.jsonl.gz", "d.json", "e.json.zst", "f.parquet", "g.txt.gz")
    left = ("1.pdf", "2.pdf", "sub/3.pdf", "4.pdf", "LICENSE", ".git/x.txt", "g.parquet.gz")
    corpus = find_corpus([fill(tmp_path, *read, *left)])
    assert [file.path.name for file in corpus.files] == list(read)
    assert corpus.bytes == 4 * len(read)
    assert corpus.left_out == [
        f"{tmp_path}: not read: 1 .gz (g.parquet.gz), 4 .pdf (1.pdf, 2.pdf, 4.pdf, …), "
        "1 hidden (.git), 1 without a suffix (LICENSE)"
    ]
    assert find_corpus([tmp_path / "a.txt"]).left_out == []


def test_the_folder_of_a_file_is_the_one_below_the_path_that_was_named(tmp_path: Path) -> None:
    fill(tmp_path / "corpus", "a.txt", "en/b.txt", "en/deep/c.txt")
    named = [tmp_path / "corpus", tmp_path / "corpus/en/b.txt"]
    assert [file.folder for file in find_corpus(named).files] == ["corpus", "en", "en", "en"]


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    fill(tmp_path, "elsewhere/wiki/a.txt", "corpus/own.txt")
    (tmp_path / "corpus/wiki").symlink_to("../elsewhere/wiki")
    (tmp_path / "corpus/one.txt").symlink_to("../elsewhere/wiki/a.txt")
    assert found(tmp_path / "corpus") == ["one.txt", "own.txt", "a.txt"]
    (tmp_path / "entry").symlink_to("corpus")
    assert find_corpus([tmp_path / "entry"]).files[0].folder == "corpus"


def test_a_loop_of_links_ends_and_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "a/x.txt", "b/y.txt")
    (tmp_path / "a/back").symlink_to("..")
    (tmp_path / "a/over").symlink_to("../b")
    (tmp_path / "b/over").symlink_to("../a")
    corpus = find_corpus([tmp_path])
    assert [file.path.name for file in corpus.files] == ["y.txt", "x.txt"]
    assert corpus.left_out == [f"{tmp_path}: not read: 3 linked once more (a/back, a/over/over, b)"]


def test_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    (tmp_path / "gone.jsonl").symlink_to("../not-there.jsonl")
    for path in (tmp_path, tmp_path / "gone.jsonl"):
        with pytest.raises(DataError, match=r"gone.jsonl: a link to ../not-there.jsonl, which"):
            find_corpus([path])
    (tmp_path / "gone.jsonl").unlink()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match="loop: a link to loop"):
        find_corpus([tmp_path])


def test_a_folder_with_nothing_to_read_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.txt, .* file in this folder$"):
        find_corpus([tmp_path])
    with pytest.raises(DataError, match=r"in this folder; it holds 1 \.pdf \(a\.pdf\)$"):
        find_corpus([fill(tmp_path, "a.pdf")])


@pytest.mark.parametrize(
    ("name", "body", "packing"),
    [
        ("a.b.JSONL.gz", ".jsonl", ".gz"),
        ("a.txt", ".txt", ""),
        ("a.gz.md.zst", ".md", ".zst"),
        ("x.parquet", ".parquet", ""),
    ],
)
def test_the_body_of_a_packed_file(tmp_path: Path, name: str, body: str, packing: str) -> None:
    (file,) = find_corpus([fill(tmp_path, name)]).files
    assert (file.body, file.packing) == (body, packing)
