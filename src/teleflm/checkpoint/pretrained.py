"""Models in: a Hugging Face folder with safetensors becomes a `ModelSource`.

The folder is data: its config and tensors are read and checked, no code of it is run.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from teleflm.checkpoint.source import ModelSource
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.errors import CheckpointError
from teleflm.model.axes import parameter_names, parameter_of

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Old Llama files carry the RoPE frequencies, which follow from the config.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def read_pretrained(folder: Path) -> ModelSource:
    """The model in a Hugging Face folder: `config.json` of TeleFLM, Llama, Mistral or Granite and
    its weights, one `model.safetensors` or several with their index, in the stored precision.

    Raises:
        CheckpointError: no such model, a damaged file, or tensors that are not those of the config.
        ConfigError: another architecture, or a feature that our network does not have.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no config.json; give the folder of a Hugging Face model or a checkpoint"
        )
    # Absolute, so that a folder of a preset's name is not taken for the preset.
    model = resolve_model(str(folder.resolve()))
    places = _check(model, _places(folder), folder)
    state: dict[str, Tensor] = {}
    for file in dict.fromkeys(places.values()):
        with _opened(file) as tensors:
            state |= {name: tensors.get_tensor(name) for name in places if places[name] == file}
    has_tokenizer = (folder / "tokenizer.json").is_file()
    return ModelSource(
        name=folder.resolve().name,
        model=model,
        state={name: state[name] for name in parameter_names(model)},
        tokenizer=folder if has_tokenizer else None,
    )


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    if (folder / INDEX).is_file():
        return _indexed_places(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = next(iter(sorted(folder.glob("*.bin"))), None)
        if pickled is not None:
            raise CheckpointError(
                f"{pickled}: pickled weights are not read; convert the model to safetensors first"
            )
        raise CheckpointError(f"{folder}: neither {WEIGHTS} nor {INDEX}; copy the weights there")
    with _opened(file) as tensors:
        return dict.fromkeys(tensors.keys(), file)


def _indexed_places(folder: Path) -> dict[str, Path]:
    try:
        weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = dict(weight_map)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / INDEX}: not an index of weights ({error}); copy or download it again"
        ) from None
    for name in set(files.values()):
        # An index from elsewhere names files of its own folder, and no others.
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{folder / INDEX}: {name!r} is not a file name of this folder")
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name}: this shard is missing; copy or download it again"
            )
    return {tensor: folder / name for tensor, name in files.items()}


def _check(model: ModelConfig, places: dict[str, Path], folder: Path) -> dict[str, Path]:
    """The places of the model's tensors, once each has the shape that the config asks for."""
    expected = list(parameter_names(model))
    extra = next((n for n in places if n not in expected and not _DERIVED.fullmatch(n)), None)
    if extra is not None:
        raise CheckpointError(
            f"{places[extra]}: tensor {extra} is not part of the model that {folder}/config.json "
            "describes; is it the config of another model?"
        )
    missing = next((name for name in expected if name not in places), None)
    if missing is not None:
        raise CheckpointError(
            f"{folder}: tensor {missing} is missing; copy or download the weights again"
        )
    wanted = {name: places[name] for name in expected}
    for file in dict.fromkeys(wanted.values()):
        with _opened(file) as tensors:
            for name in (n for n in wanted if wanted[n] == file):
                _check_tensor(model, name, tensors.get_slice(name), file)
    return wanted


def _check_tensor(model: ModelConfig, name: str, stored: object, file: Path) -> None:
    shape, dtype = tuple(stored.get_shape()), stored.get_dtype()  # type: ignore[attr-defined]
    wanted = parameter_of(name).shape(model)
    if shape != wanted:
        raise CheckpointError(
            f"{file}: tensor {name} is {list(shape)}, but config.json asks for {list(wanted)}; "
            "is it the config of another model?"
        )
    if dtype not in ("BF16", "F16", "F32", "F64"):
        raise CheckpointError(
            f"{file}: tensor {name} is stored as {dtype}; quantised weights cannot be read, use "
            "the model in bf16 or fp32"
        )


@contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: damaged safetensors file ({error}); copy or download it again"
        ) from None
