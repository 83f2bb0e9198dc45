"""The domains of a corpus: what a file's name says, and which names a store can have."""

import re
from collections.abc import Iterable
from pathlib import Path

from teleflm.errors import DataError

HELD_OUT_SUFFIX = ".held-out"
# Each domain keeps files open; 256 open files is the default limit on macOS.
MOST_DOMAINS = 100
WAY_OUT = (
    "put all text in one domain with --domain NAME, or name domains by folder with --domain-by "
    "folder, or by file with --domain-by file"
)

_NAME = re.compile(r"\w[\w .+-]{0,99}")
# train-00001-of-00012, with the hash that the hub used to add; part-00017, with what Spark adds.
_SHARD = re.compile(
    r"(.*?)[-_]?(\d+[-_]of[-_]\d+([-_][0-9a-f]{8,})?|\d{5,}(-[0-9a-f-]{36}(-c\d+)?)?)"
)
_NUMBER = re.compile(r"[\d_-]*")


def file_domain(path: Path) -> str:
    """The domain that a file's name gives: up to its first dot, without the number of a shard.

    Where nothing is left but numbers, the folder's name.
    """
    name = path.name.split(".")[0]
    if shard := _SHARD.fullmatch(name):
        name = shard[1]
    return path.absolute().parent.name if _NUMBER.fullmatch(name) else name


class DomainNames:
    """The names that have been met so far. A domain is a file name, so none is to be trusted.

    `endings` are those of files beside a domain's own, which no name may have.
    """

    def __init__(self, endings: tuple[str, ...] = (HELD_OUT_SUFFIX,)) -> None:
        self._endings = endings
        self._by_case: dict[str, str] = {}

    def admit(self, names: Iterable[str]) -> None:
        """Raises DataError for one that cannot be a file name, or is one too many."""
        for name in names:
            if self._by_case.get(name.casefold()) != name:
                self._admit_new(name)

    def _admit_new(self, name: str) -> None:
        if not _NAME.fullmatch(name) or name.endswith(self._endings):
            endings = " or ".join(map(repr, self._endings))
            raise DataError(
                f"domain {name!r} cannot be a file name: use letters, digits, '_', '-', '.', '+' "
                f"and spaces, at most 100, and not the ending {endings}; or {WAY_OUT}"
            )
        if other := self._by_case.get(name.casefold()):
            raise DataError(
                f"domains {other!r} and {name!r} differ only in case; rename one, or {WAY_OUT}"
            )
        if len(self._by_case) >= MOST_DOMAINS:
            some = ", ".join(map(repr, list(self._by_case.values())[:3]))
            raise DataError(f"more than {MOST_DOMAINS} domains: {some}, … and {name!r}; {WAY_OUT}")
        self._by_case[name.casefold()] = name
