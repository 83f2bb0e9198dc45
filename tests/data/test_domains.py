from pathlib import Path

import pytest

from teleflm.data.domains import DomainNames, file_domain
from teleflm.errors import DataError


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("code.python.jsonl", "code"),
        ("train-00001-of-00012.parquet", "train"),
        ("train-00000-of-00002-a09b74b3ef9c3b56.parquet", "train"),
        ("c4-train.00000-of-01024.json.gz", "c4-train"),
        ("web_3_of_10.jsonl", "web"),
        ("part-00000.txt", "part"),
        ("part-00017-0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f-c000.snappy.parquet", "part"),
        ("news-2019.jsonl", "news-2019"),
        ("wiki_12.txt", "wiki_12"),
        ("out-of-africa.txt", "out-of-africa"),
        ("0000.parquet", "folder"),
        ("000_00000.parquet", "folder"),
        ("00001-of-00012.jsonl", "folder"),
        ("1342.txt", "folder"),
    ],
)
def test_the_name_of_a_file_without_the_number_of_its_shard(name: str, domain: str) -> None:
    assert file_domain(Path("folder") / name) == domain


@pytest.mark.parametrize(
    "name", ["../escape", "a/b", ".hidden", "x.held-out", "", "a\nb", "a" * 101, "wiki:en"]
)
def test_a_domain_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"cannot be a file name.*--domain NAME"):
        DomainNames().admit([name])


def test_names_that_clash_or_are_too_many() -> None:
    names = DomainNames()
    names.admit([*map(str, range(100)), "7"])
    with pytest.raises(DataError, match=r"more than 100 domains: '0', '1', '2', … and 'new'; put"):
        names.admit(["new"])
    names = DomainNames()
    names.admit(["Books", "Books"])
    with pytest.raises(DataError, match="'Books' and 'books' differ only in case"):
        names.admit(["books"])
