"""MODEL, as commands name it: a preset, a file, a model folder or a mapping of fields."""

import difflib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from teleflm.config.base import build, read_yaml
from teleflm.config.huggingface import from_huggingface
from teleflm.config.model import ModelConfig
from teleflm.errors import ConfigError

# As the model cards and papers round them; up to 102B they count the FFN as 8d/3 exactly.
PUBLISHED_PARAMETERS = {
    "tele-flm-52b": 52_850_000_000,
    "tele-flm-102b": 102_300_000_000,
    "tele-flm-1t": 1_083_740_000_000,
    "tele-flm-mup": 283_000_000,
}


def preset_names() -> list[str]:
    """The names of the shipped presets."""
    folder = resources.files("teleflm.config") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def model_fields(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """The fields that MODEL gives, before inheritance and defaults.

    Args:
        spec: a preset's name, a YAML file, a folder with a Hugging Face `config.json`, or a
            mapping of fields (with `preset:` for the one that it starts from).

    Raises:
        ConfigError: nothing of that name; the message lists what there is.
    """
    if isinstance(spec, Mapping):
        given = dict(spec)
        base = given.pop("preset", None)
        return {**(model_fields(base) if base is not None else {}), **given}
    if not isinstance(spec, str):
        raise ConfigError(f"model {spec!r}: expected a preset, a path or a mapping of fields")
    if spec in preset_names():
        return read_yaml(Path(str(resources.files("teleflm.config") / "presets" / f"{spec}.yaml")))
    path = Path(spec)
    if (path / "config.json").is_file():
        return from_huggingface(read_json(path / "config.json"), str(path / "config.json"))
    if path.is_file():
        fields = read_yaml(path)
        if "model" in fields:
            raise ConfigError(
                f"{spec}: a RUN.yaml, as it has the key 'model', where the fields of a model are "
                "expected; write hidden_size and the others into a file of their own"
            )
        return fields
    if path.is_dir():
        raise ConfigError(
            f"model {spec!r}: a folder without a config.json, so no model folder; `teleflm "
            "inspect` shows a checkpoint, and a RUN.yaml with start_from goes on from it"
        )
    near = difflib.get_close_matches(spec, preset_names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"presets: {', '.join(preset_names())}"
    raise ConfigError(f"model {spec!r}: no preset, YAML file or model folder of that name; {hint}")


def resolve_model(spec: str | Mapping[str, Any], parent: ModelConfig | None = None) -> ModelConfig:
    """The model that `spec` (see `model_fields`) describes.

    With a `parent`, fields that `spec` leaves out are the parent's; a multi-head parent's child
    stays multi-head where only the number of heads is given.

    Raises:
        ConfigError: naming the field at fault.
    """
    fields = model_fields(spec)
    if parent is not None:
        inherited = parent.model_dump()
        if parent.queries_per_group == 1 and "num_attention_heads" in fields:
            del inherited["num_key_value_heads"]
        fields = {**inherited, **fields}
    name = spec if isinstance(spec, str) else "model"
    return build(ModelConfig, fields, str(name))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ConfigError: not readable, or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return data
