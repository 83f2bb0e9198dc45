"""Records out of JSON and Parquet files, each with the place that an error names."""

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from teleflm.data.find import PARQUET, CorpusFile
from teleflm.data.unpack import Progress, decode, unpacked_blocks
from teleflm.errors import DataError, MissingExtraError

Record = tuple[str, Any]
"""Where a record stands, and the record."""

# Rows of a Parquet file that are decoded at once: as many as hold about this much text.
PARQUET_BYTES = 1 << 18
MOST_ROWS = 1024

_SPACE = re.compile(r"[ \t\n\r]*")
# Longer than any literal that the end of a block can cut in two, as `-Infinity` or `\ud83d\ude00`.
_LITERAL = 16


def records_of(
    file: CorpusFile,
    key: str | None,
    progress: Progress,
    *,
    whole: bool = False,
    also: Sequence[str] = (),
) -> Iterator[Record]:
    """The records of a JSON or Parquet file, whose text is in the field `key`; None for any.

    Of Parquet only the columns of `key` (as `a` or `a.b`), `metadata` and `also` are read, unless
    `whole` or without a key.
    Raises DataError as the reader of each kind does.
    """
    if file.body == PARQUET:
        return parquet_records(file.path, key, progress, whole=whole, also=also)
    read = json_lines if file.body == ".jsonl" else json_values
    return read(file.path, unpacked_blocks(file, progress))


def json_lines(path: Path, blocks: Iterator[bytes]) -> Iterator[Record]:
    """The values of a file with one a line; empty lines are passed over.

    Raises DataError, with the line, for bytes that are not UTF-8 and bad JSON.
    """
    numbers = count(1)
    # Who holds a line for a moment too long, as `enumerate` does, doubles what a long one takes.
    for line in _lines(blocks):
        number = next(numbers)
        where = f"{path}, line {number}"
        text = decode(line, f"{where}, byte")
        del line
        if number == 1:
            text = text.removeprefix("\ufeff")
        if text and not text.isspace():
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                array = number == 1 and text.startswith("[")
                hint = (
                    "an array over several lines is a .json file: rename it"
                    if array
                    else "repair or remove the line"
                )
                raise DataError(f"{where}: not valid JSON ({error}); {hint}") from error
            del text
            yield where, record


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []
    for block in blocks:
        first, *rest = block.split(b"\n")
        pending.append(first)
        if rest:
            pending = [b"".join(pending)]
            yield pending.pop()
            pending = [rest.pop()]
            yield from rest
        del block, first, rest
    pending = [b"".join(pending)]
    yield pending.pop()


def json_values(path: Path, blocks: Iterator[bytes]) -> Iterator[Record]:
    """The values of a file that is an array of them, or holds one or more, one after the other.

    Raises DataError, with the line, for bytes that are not UTF-8 and bad JSON.
    """
    stream = _Characters(path, blocks)
    number, array = 0, stream.peek() == "["
    if array:
        stream.skip()
        if stream.peek() == "]":
            stream.skip()
            array = False
    while array or stream.peek():
        number += 1
        stream.peek()
        where = f"{path}, line {stream.line}, record {number}"
        yield where, stream.value()
        if array:
            if stream.peek() not in (",", "]"):
                raise stream.error("an array goes on with ',' or ends with ']'")
            array = stream.skip() == ","
            if not array and stream.peek():
                raise stream.error("more behind the end of the array")


class _Characters:
    """The text of a file from a place on that only moves forwards."""

    def __init__(self, path: Path, blocks: Iterator[bytes]) -> None:
        self._path, self._blocks = path, blocks
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._values = json.JSONDecoder()
        self._text, self._place, self._bytes, self._ended = "", 0, 0, False
        self._lines_before = 0

    @property
    def line(self) -> int:
        """The line of the place, counted from 1."""
        return self._lines_before + self._text.count("\n", 0, self._place) + 1

    def error(self, what: object) -> DataError:
        """What is wrong at the place."""
        return DataError(
            f"{self._path}, line {self.line}: not valid JSON ({what}); repair or remove the record"
        )

    def peek(self) -> str:
        """The next character that is no white space, or "" at the end of the file."""
        while True:
            self._place = _SPACE.match(self._text, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read(1):
                return ""

    def skip(self) -> str:
        """Go past the next character, and return it."""
        self._place += 1
        return self._text[self._place - 1]

    def value(self) -> Any:
        """The next JSON value."""
        while True:
            self.peek()
            try:
                value, self._place = self._values.raw_decode(self._text, self._place)
                return value
            except json.JSONDecodeError as error:
                # More text may mend what stands at its end, and a string that does not end.
                cut = error.pos >= len(self._text) - _LITERAL or error.msg.startswith("Unterm")
                # As much again as there is: so a long value is not read from its start too often.
                if not cut or not self._read(len(self._text) - self._place):
                    raise self.error(error) from error
            except RecursionError as error:
                raise self.error(error) from error

    def _read(self, characters: int) -> bool:
        """Have at least so many more, unless the file ends; whether there are any."""
        self._lines_before = self.line - 1
        parts, found = [self._text[self._place :]], 0
        self._place = 0
        while found < max(characters, 1) and not self._ended:
            block = next(self._blocks, b"")
            self._ended = not block
            held = len(self._decoder.getstate()[0])
            try:
                part = self._decoder.decode(block, final=self._ended)
            except UnicodeDecodeError as error:
                decode(error.object, f"{self._path}, byte", self._bytes - held)
            if not self._bytes:
                part = part.removeprefix("\ufeff")
            self._bytes += len(block)
            parts.append(part)
            found += len(part)
        self._text = "".join(parts)
        return found > 0


def parquet_records(
    path: Path,
    key: str | None,
    progress: Progress,
    *,
    whole: bool = False,
    also: Sequence[str] = (),
) -> Iterator[Record]:
    """The rows of a Parquet file; see `records_of`.

    Raises DataError for a file that is damaged or lacks the column.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error

    row, reported, size = 0, 0, path.stat().st_size
    try:
        # Without pre-buffering, which would hold all bytes of a group of rows.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            names = [column.path for column in map(file.schema.column, range(len(file.schema)))]
            prefixes = tuple(f"{name}." for name in (key, "metadata", *also))
            if whole or key is None:
                prefixes = ("",)
            wanted = [name for name in names if f"{name}.".startswith(prefixes)]
            if key is not None and not any(f"{name}.".startswith(f"{key}.") for name in wanted):
                raise DataError(f"{path}: {missing_key(key, names)}")
            for group in range(file.num_row_groups):
                rows = _rows_at_once(file.metadata.row_group(group))
                for batch in file.iter_batches(rows, row_groups=[group], columns=wanted):
                    # Row by row: a list of all rows would hold their texts a second time.
                    for index in range(batch.num_rows):
                        row += 1
                        record = {
                            name: column[index].as_py()
                            for name, column in zip(batch.schema.names, batch.columns, strict=True)
                        }
                        yield f"{path}, row {row}", record
                    done = size * row // file.metadata.num_rows
                    progress(done - reported)
                    reported = done
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged parquet file after row {row} ({error})") from error


def _rows_at_once(group: Any) -> int:
    return max(1, min(MOST_ROWS, PARQUET_BYTES * group.num_rows // max(group.total_byte_size, 1)))


_MOST_FIELDS = 20


def missing_key(key: str, fields: list[str], what: str = "text") -> str:
    """What to say where `key`, which should hold `what`, is not among `fields`."""
    there = ", ".join(f'"{field}"' for field in fields[:_MOST_FIELDS]) or "none"
    more = ", …" if len(fields) > _MOST_FIELDS else ""
    recipe = ", or in a recipe by text_key" if what == "text" else ""
    return (
        f'no field "{key}"; the fields are {there}{more}: name the one that holds the {what} with '
        f"--{what}-key{recipe}"
    )
