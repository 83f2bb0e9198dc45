"""Models out: folders that transformers and the serving stacks load.

`granite` keeps every weight bit for bit and puts the multipliers into its config; `llama` folds
them into the embedding and the head, in fp32 and before any cast; `teleflm` is the released
layout with its own code files.
"""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from teleflm.checkpoint.card import CardFacts, model_card
from teleflm.checkpoint.pretrained import INDEX, WEIGHTS
from teleflm.checkpoint.source import ModelSource
from teleflm.checkpoint.tokenizer_files import TOKENIZER_FILES, copy_tokenizer
from teleflm.config.huggingface import SPECIAL_IDS, ExportKind, to_huggingface
from teleflm.config.model import ModelConfig
from teleflm.errors import CheckpointError
from teleflm.files import written_aside
from teleflm.model.axes import parameter_names, parameter_of

ExportDtype = Literal["fp32", "bf16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SHARD_BYTES = 5_000_000_000  # past it, transformers' own files come in shards too
_CODE_FILES = ("configuration_teleflm.py", "modeling_teleflm.py")
_OWN_FILES = ("config.json", "generation_config.json", "README.md")


def export(
    source: ModelSource,
    out: Path,
    kind: ExportKind,
    dtype: ExportDtype = "fp32",
    *,
    force: bool = False,
    card: CardFacts | None = None,
) -> None:
    """Write `source` to the folder `out`, which appears whole or not at all.

    `force` replaces an earlier export in `out`; `card` adds measurements to the model card.

    Raises:
        CheckpointError: `out` is not empty and `force` is not given, or is no export.
        ConfigError: the format cannot hold this shape.
        MachineError: the disk is full or fails.
    """
    config = to_huggingface(source.model, kind)
    # The folder itself, not a link to it, is what gets replaced.
    out = out.resolve()
    _check_place(out, force)
    with written_aside(out) as folder:
        _write_folder(source, folder, kind, dtype, config, card or CardFacts())


def _check_place(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise CheckpointError(f"{out} is a file; choose a folder for the export")
    present = list(out.iterdir())
    if present and not force:
        raise CheckpointError(f"{out} is not empty; choose another folder or use --force")
    # A run, a checkpoint, a home is not ours to replace, whatever the flag.
    foreign = next((p for p in present if p.is_dir() or not _is_exported(p.name)), None)
    if foreign is not None:
        raise CheckpointError(
            f"{out} holds {foreign.name}, so it is no earlier export and stays; choose another "
            "folder"
        )


def _is_exported(name: str) -> bool:
    """Whether an export writes a file of that name."""
    is_weights = name == INDEX or name.endswith(".safetensors")
    return is_weights or name in (*_CODE_FILES, *TOKENIZER_FILES, *_OWN_FILES)


def _write_folder(
    source: ModelSource,
    folder: Path,
    kind: ExportKind,
    dtype: ExportDtype,
    config: dict[str, Any],
    card: CardFacts,
) -> None:
    ids = _special_ids(source.tokenizer)
    torch_dtype = str(_DTYPES[dtype]).removeprefix("torch.")
    _write_json(folder / "config.json", {**config, **ids, "torch_dtype": torch_dtype})
    _write_json(folder / "generation_config.json", ids)
    if kind == "teleflm":
        released = resources.files("teleflm.checkpoint") / "released"
        for name in _CODE_FILES:
            (folder / name).write_bytes((released / name).read_bytes())
    if source.tokenizer is not None:
        _write_tokenizer(source.tokenizer, folder, source.model.max_position_embeddings)
    (folder / "README.md").write_text(model_card(source, kind, dtype, card), encoding="utf-8")
    _write_weights(source, folder, kind, _DTYPES[dtype])


def _write_weights(source: ModelSource, folder: Path, kind: ExportKind, dtype: torch.dtype) -> None:
    shards = list(_shards(source.model, dtype))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # A shard at a time: the cast copies of the others need no memory.
        tensors = {name: _exported(source, name, kind).to(dtype).contiguous() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(_bytes(source.model, name, dtype) for name in weight_map)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _write_json(folder / INDEX, index)


def _exported(source: ModelSource, name: str, kind: ExportKind) -> Tensor:
    """The tensor under `name`, with the multiplier that Llama has no other place for."""
    tensor = source.state[name]
    if kind == "llama" and name == "model.embed_tokens.weight":
        return tensor.float() * source.model.input_mult
    if kind == "llama" and name == "lm_head.weight":
        return tensor.float() * source.model.logit_multiplier
    return tensor


def _shards(model: ModelConfig, dtype: torch.dtype) -> Iterator[list[str]]:
    """Tensor names by file, in the order of the state dict."""
    names: list[str] = []
    held = 0
    for name in parameter_names(model):
        size = _bytes(model, name, dtype)
        if names and held + size > _SHARD_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


def _bytes(model: ModelConfig, name: str, dtype: torch.dtype) -> int:
    return torch.Size(parameter_of(name).shape(model)).numel() * dtype.itemsize


def _special_ids(tokenizer: Path | None) -> dict[str, int | None]:
    """bos, eos and pad ids: Tele-FLM's, or those that the model's tokenizer names.

    A tokenizer without one of them (many have no padding) leaves its id empty.
    """
    if tokenizer is None or not (tokenizer / "tokenizer_config.json").is_file():
        return dict(SPECIAL_IDS)
    config = _read_json(tokenizer / "tokenizer_config.json")
    added = _read_json(tokenizer / "tokenizer.json").get("added_tokens", [])
    id_of = {token["content"]: token["id"] for token in added}
    ids: dict[str, int | None] = {}
    for key in SPECIAL_IDS:
        token = config.get(key.removesuffix("_id"))
        ids[key] = id_of.get(token["content"] if isinstance(token, dict) else token)
    return ids


def _write_tokenizer(tokenizer: Path, folder: Path, context: int) -> None:
    copy_tokenizer(tokenizer, folder)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if (tokenizer / "tokenizer_config.json").is_file():
        config |= _read_json(tokenizer / "tokenizer_config.json")
    _write_json(folder / "tokenizer_config.json", {**config, "model_max_length": context})


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); restore the file") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file}: expected a JSON object; restore the file")
    return data


def _write_json(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
