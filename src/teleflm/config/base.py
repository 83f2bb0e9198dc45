"""Strict typed configuration: YAML in, a frozen model or one clear error out."""

import copy
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teleflm.errors import ConfigError
from teleflm.files import write_whole


class Strict(BaseModel):
    """Base of every configuration model: frozen, strictly typed, unknown keys forbidden."""

    # Infinity and NaN have no JSON: a manifest that held one could never be read again.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


PathText = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
"""A path that the operating system can have."""

ConfigType = TypeVar("ConfigType", bound=Strict)


# Beside its own error the library lets those through that tagged or endless values raise in it.
_YAML_ERRORS = (yaml.YAMLError, ValueError, AttributeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML 1.2, where plain PyYAML reads 1.1: `3e-4` is a number (and no string, a classic way to
    lose a run), `no`, `on` and `2025-01-31` are text, `010` is ten. Keys are text, whatever they
    look like: a domain may be called `null` or `007`. No key has two values, of which the last
    would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                if key.tag in _PLAIN:
                    key.tag = "tag:yaml.org,2002:str"
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0 if text.startswith(("0x", "0o")) else 10)


class _Dumper(yaml.SafeDumper):
    """Quotes text that a reader of YAML 1.1 or of 1.2 would take for something else."""


# What text without quotes may be, as a regular expression and the first characters of it.
_PLAIN = {
    f"tag:yaml.org,2002:{kind}": (re.compile(rf"(?:{pattern})\Z", re.X), list(first))
    for kind, pattern, first in (
        ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", "[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+", "-+0123456789"),
        (
            "float",
            r"""[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?
            |\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))""",
            "-+0123456789.",
        ),
    )
}
_Loader.yaml_implicit_resolvers = {"<": list(yaml.SafeLoader.yaml_implicit_resolvers["<"])}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_value(text: str) -> Any:
    """The YAML value of `text`, as it would read in a file."""
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not UTF-8, not YAML, or not a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    except _YAML_ERRORS as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top level")
    return data


def write_yaml(path: Path, config: Strict) -> None:
    """Write the whole configuration, defaults included, in the order of its fields."""
    write_whole(path, to_yaml(config))


def to_yaml(config: Strict) -> str:
    """The whole configuration as YAML, defaults included."""
    # Through JSON: tuples become lists and paths strings, so that any YAML reader takes it.
    plain = json.loads(config.model_dump_json())
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with each `key.sub=value` set; values are read as YAML.

    A key below something that is not a mapping (`model.hidden_size` over `model: nano-52b`) turns
    it into one, by way of `preset`.

    Raises:
        ConfigError: an override without `=`, or with a value that is not YAML.
    """
    merged = copy.deepcopy(data)
    for override in overrides:
        dotted, separator, text = override.partition("=")
        if not separator or not dotted:
            raise ConfigError(f"override {override!r}: write it as key.sub=value")
        try:
            value = parse_value(text)
        except _YAML_ERRORS:
            raise ConfigError(
                f"override {override!r}: the value is not valid YAML; quote it"
            ) from None
        set_value(merged, dotted, value)
    return merged


def set_value(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `key.sub` in nested mappings; see `apply_overrides`."""
    *parents, leaf = dotted.split(".")
    node = data
    for parent in parents:
        below = node.get(parent)
        if below is None:
            below = {}
        elif not isinstance(below, dict):
            below = {"preset": below}
        node[parent] = below
        node = below
    node[leaf] = value


def laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`base` with what `top` gives, key by key where both have a mapping."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = laid_over(below, value) if both else value  # type: ignore[arg-type]
    return merged


def build(kind: type[ConfigType], data: Mapping[str, Any], source: str) -> ConfigType:
    """Validate `data` (read from `source`) as a `kind`.

    Raises:
        ConfigError: naming the source, each field at fault, its value, and the nearest known key
            for an unknown one.
    """
    try:
        # By way of JSON, where strict typing takes lists for tuples and strings for enums.
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems = error.errors()
        # A list that an item at fault is left out of may be called too short for it.
        deeper = {
            problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))
        }
        lines = [_explain(kind, problem) for problem in problems if problem["loc"] not in deeper]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _explain(kind: type[Strict], problem: Any) -> str:
    # A tag says which member of a union was meant, and is no key.
    keys = [str(part) for part in problem["loc"] if not str(part).startswith("(")]
    place = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        parent = _model_at(kind, keys[:-1])
        known = list(parent.model_fields) if parent else []
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        nearest = ".".join([*keys[:-1], *near])
        hint = f"did you mean {nearest!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {place!r}; {hint}"
    if problem["type"] == "missing":
        return f"key {place!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    return f"{place}: {message} (got {problem['input']!r}{_hint(problem)})"


def _hint(problem: Any) -> str:
    """How YAML is told that text, or a truth value, is meant."""
    value = problem["input"]
    if problem["type"] == "string_type" and isinstance(value, bool | int | float):
        return "; text that looks like this is quoted, on the command line twice: \"'…'\""
    return "; write true or false" if problem["type"] == "bool_type" else ""


def _model_at(kind: type[Strict], keys: Sequence[str]) -> type[Strict] | None:
    """The configuration model that `keys` lead to."""
    model: type[Strict] | None = kind
    for key in keys:
        field = model.model_fields.get(key) if model else None
        if field is None:
            continue  # a name in a mapping, or that of a union's member, which pydantic adds
        model = _model_in(field.annotation)
    return model


def _model_in(annotation: Any) -> type[Strict] | None:
    """The configuration model that a type is of, or a member or an entry of it."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    parts = map(_model_in, getattr(annotation, "__args__", ()))
    return next((model for model in parts if model), None)
