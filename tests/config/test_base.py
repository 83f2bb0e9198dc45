"""YAML and validation: what is read is what was meant, or an error says where it is not."""

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from teleflm.config.base import (
    Strict,
    apply_overrides,
    build,
    parse_value,
    read_yaml,
    to_yaml,
    write_yaml,
)
from teleflm.errors import ConfigError


class Inner(Strict):
    size: int = 1
    pair: tuple[float, float] = (0.0, 1.0)


class Outer(Strict):
    name: str = "x"
    rate: float = 0.5
    inner: Inner = Inner()
    other: Inner | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),  # plain PyYAML: a string
        ("1E+3", 1000.0),
        ("-.5e1", -5.0),
        ("1.", 1.0),
        ("12", 12),
        ("-7", -7),
        ("0x1f", 31),
        ("true", True),
        ("null", None),
        ("e3", "e3"),
        ("1e", "1e"),
        ("v1.0", "v1.0"),
        ("1.2.3", "1.2.3"),
        ("2025-01-31", "2025-01-31"),  # plain PyYAML: a date, which no field takes
        ("[1e-3, a]", [1e-3, "a"]),
        # Plain PyYAML: truth values, an octal and a sexagesimal number, an error.
        ("[no, on, Yes, OFF]", ["no", "on", "Yes", "OFF"]),
        ("010", 10),
        ("08", 8),
        ("0o10", 8),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("=", "="),
        ("[True, FALSE, ~]", [True, False, None]),
    ],
)
def test_values_read_as_yaml_1_2(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


KEYS = ["no", "on", "yes", "n", "null", "~", "true", "1", "007", "1.0", "1e3", ".inf", "2025-01-31"]


def test_keys_are_text_as_it_is_written() -> None:
    # Plain PyYAML: False, True, None, 7 …, which JSON spells `false`, `true`, `null` and `7`.
    text = "".join(f"{key}: {{{key}: 1}}\n" for key in KEYS)
    assert parse_value(text) == {key: {key: 1} for key in KEYS}
    assert apply_overrides({}, [f"d={{{key}: 1}}" for key in KEYS[:1]]) == {"d": {"no": 1}}
    assert apply_overrides({}, [f"d.{key}=1" for key in ("no", "1")]) == {"d": {"no": 1, "1": 1}}
    assert parse_value("{<<: {a: 1}, b: 2}") == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", [*KEYS, "010", "0x1f", "0o7", "1:30", "=", "<<", "", "- a"])
def test_text_is_written_so_that_it_stays_text(text: str) -> None:
    outer = Outer(name=text)
    assert parse_value(to_yaml(outer))["name"] == text
    assert yaml.safe_load(to_yaml(outer))["name"] == text


@pytest.mark.parametrize("text", ["1", "1e3", "true"])
def test_what_is_no_text_says_how_to_be_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"name: .*quoted, on the command line twice"):
        build(Outer, apply_overrides({}, [f"name={text}"]), "f")
    assert build(Outer, apply_overrides({}, [f"name='{text}'"]), "f").name == text


class Switch(Strict):
    on: bool = False
    how: Literal["auto"] | bool = "auto"


def test_yes_is_no_truth_value() -> None:
    for field in ("on", "how"):
        with pytest.raises(ConfigError, match=rf"f: .*{field}.*'yes'; write true or false"):
            build(Switch, apply_overrides({}, [f"{field}=yes"]), "f")
    assert build(Switch, parse_value("{on: true, how: True}"), "f") == Switch(on=True, how=True)


def test_a_whole_number_is_no_float_and_a_float_no_whole_number() -> None:
    assert build(Outer, {"rate": 1}, "f").rate == 1.0
    for bad in (1.0, "1", True, None):
        with pytest.raises(ConfigError, match=r"f: inner\.size: "):
            build(Outer, {"inner": {"size": bad}}, "f")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_json_cannot_hold_is_refused(value: float) -> None:
    # It would be saved as null, and the manifest of every checkpoint be unreadable.
    with pytest.raises(ConfigError, match=r"rate: .*finite"):
        build(Outer, {"rate": value}, "f")


@pytest.mark.parametrize(
    ("data", "place", "near"),
    [
        ({"nmae": "y"}, "nmae", "name"),
        ({"inner": {"sise": 2}}, r"inner\.sise", r"\w+.size"),
        ({"other": {"sise": 2}}, r"other\.sise", r"\w+.size"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(data: Any, place: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"file: unknown key '{place}'; did you mean '{near}'"):
        build(Outer, data, "file")


def test_an_unknown_key_like_no_other_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="known keys: size, pair"):
        build(Outer, {"inner": {"qqqq": 2}}, "file")


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)rate.*'abc'.*inner\.size.*'d'"):
        build(Outer, {"rate": "abc", "inner": {"size": "d"}}, "file")


def test_overrides() -> None:
    data = {"inner": {"size": 2}, "model": "nano-52b", "empty": None}
    changed = apply_overrides(
        data,
        [
            "inner.size=3e-1",
            "new.deep.key=[1, a]",
            "model.hidden_size=64",
            "empty.a=1",
            "url=a=b",
            "gone=",
            "inner.size=7",
        ],
    )
    assert changed == {
        "inner": {"size": 7},
        "new": {"deep": {"key": [1, "a"]}},
        "model": {"preset": "nano-52b", "hidden_size": 64},
        "empty": {"a": 1},
        "url": "a=b",
        "gone": None,
    }
    assert data == {"inner": {"size": 2}, "model": "nano-52b", "empty": None}


@pytest.mark.parametrize("bad", ["training.steps", "=3", "a=[1", "a={", "a=a: b: c"])
def test_overrides_that_cannot_be_read(bad: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        apply_overrides({}, [bad])


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().inner.size = 2


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "名.yaml"
    outer = Outer(name="第一", rate=3e-4, other=Inner(pair=(1e-30, 2.0)))
    write_yaml(file, outer)
    assert build(Outer, read_yaml(file), "f") == outer
    assert "第一" in to_yaml(outer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not valid YAML"),
        (b"- 1\n- 2", "mapping"),
        (b"", "mapping"),
        (b"a: \xff\xfe", "UTF-8"),
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", r"key 'c' is given twice.*\n?.*line 4"),
        (b"a: &x {b: 1}\nc: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as found:
        read_yaml(file)
    assert str(file) in str(found.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
