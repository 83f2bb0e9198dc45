"""What a record says: its text, its domain and its weight."""

import hashlib
import math
from typing import Any

from teleflm.data.records import missing_key
from teleflm.data.unpack import decode
from teleflm.errors import DataError


def text_of(record: Any, key: str, where: str) -> str | None:
    """The text at `key`, with dots for a field of a field; None where it is null.

    Raises DataError, with `where`, for what is no record, has no such field or no text there.
    """
    if not isinstance(record, dict):
        raise DataError(
            f"{where}: a record is an object with fields, not {kind_of(record)}; write it as "
            f'{{"{key}": "…"}}, or remove it'
        )
    try:
        text = _look_up(record, key)
    except KeyError:
        raise DataError(f"{where}: {missing_key(key, field_names(record))}") from None
    if isinstance(text, bytes):
        return decode(text, f'{where}: field "{key}", byte')
    if text is None:
        return None
    if not isinstance(text, str):
        raise DataError(
            f'{where}: the field "{key}" is {kind_of(text)}, not a string; name the one that holds '
            "the text with --text-key, or in a recipe by text_key"
        )
    check_characters(text, where)
    return text


def check_characters(text: str, where: str) -> None:
    """Raises DataError, with `where`, for a text with a lone surrogate: JSON can spell half of a
    pair, which no UTF-8 text can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the text has a lone surrogate (\\u{ord(text[error.start]):04x}) at "
            f"character {error.start}; repair the record"
        ) from error


def domain_of(record: dict[str, Any], where: str) -> str | None:
    """`metadata.domain`, where there is one. Raises DataError where it is no string."""
    metadata = record.get("metadata")
    name = metadata.get("domain") if isinstance(metadata, dict) else None
    if name is not None and not isinstance(name, str):
        raise DataError(
            f"{where}: metadata.domain is {kind_of(name)}, not a string; name domains by file with "
            "--domain-by file, all text's with --domain NAME, or a recipe's source's by domain"
        )
    return name


MOST_COPIES = 1000


def copies_of(record: dict[str, Any], text: str, key: str, where: str) -> int:
    """How often a document is there for the weight w at `key`: floor(w) times, and once more where
    the hash of its `id`, else of its `text`, is in the first w - floor(w) of all hashes.

    So the same document is there as often wherever it stands. An `id` is a string or a whole
    number.

    Raises DataError, with `where`, for a weight that is missing or not a number from 0 to
    MOST_COPIES.
    """
    try:
        weight = _look_up(record, key)
    except KeyError:
        raise DataError(f"{where}: {missing_key(key, field_names(record), 'weight')}") from None
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= MOST_COPIES:
        said = str(weight) if number else kind_of(weight)
        raise DataError(
            f'{where}: the weight in the field "{key}" is {said}, not a number from 0 to '
            f"{MOST_COPIES:,}; repair the record, or leave out --weight-key"
        )
    rest, whole = math.modf(weight)
    identity = record.get("id")
    named = isinstance(identity, str | int) and not isinstance(identity, bool) and identity != ""
    name = str(identity) if named else text
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int(whole) + (int.from_bytes(digest[:8], "big") < rest * 2**64)


def number_at(record: Any, key: str, where: str, what: str) -> float:
    """The number at `key`, with dots for a field of a field; `what` it is, and --WHAT-key the
    option that names it.

    Raises DataError, with `where`, for one that is missing, null, or no finite number.
    """
    try:
        number = _look_up(record, key)
    except KeyError:
        raise DataError(f"{where}: {missing_key(key, field_names(record), what)}") from None
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    try:
        value = float(number) if is_number else math.nan
    except OverflowError:  # a whole number has any length
        value = math.inf
    if not math.isfinite(value):
        said = str(value) if is_number else kind_of(number)
        raise DataError(
            f'{where}: the {what} in the field "{key}" is {said}, not a finite number; repair the '
            f"record, or leave out --{what}-key"
        )
    return value


def _look_up(record: dict[str, Any], key: str) -> Any:
    """The value at `key`, a field or by dots a field of a field; KeyError where there is none."""
    if key in record:
        return record[key]
    first, _, rest = key.partition(".")
    inner = record[first]
    if inner is None:
        return None
    if not rest or not isinstance(inner, dict):
        raise KeyError(key)
    return _look_up(inner, rest)


def field_names(record: dict[str, Any], before: str = "") -> list[str]:
    """What a record has a value for, with dots for a field of a field."""
    found: list[str] = []
    for name, value in record.items():
        inner = isinstance(value, dict) and value
        found += field_names(value, f"{before}{name}.") if inner else [f"{before}{name}"]
    return found


def kind_of(value: Any) -> str:
    """In words, what JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
