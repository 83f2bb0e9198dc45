"""Models out: folders that transformers and the serving stacks load.

`granite` keeps every weight bit for bit and puts the multipliers into its config; `teleflm` is the
released layout with its own code files; the others fold the multipliers into the embedding and the
head (or, where that is tied, the last gain), in fp32 and before any cast.
"""

import json
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from teleflm.checkpoint.card import CardFacts, model_card
from teleflm.checkpoint.folder import Records, in_pieces, write_folder
from teleflm.checkpoint.open import Opened
from teleflm.checkpoint.pretrained import INDEX, WEIGHTS
from teleflm.checkpoint.writer import Block
from teleflm.config.families import family_of
from teleflm.config.formats import ExportKind
from teleflm.config.huggingface import to_huggingface
from teleflm.config.model import ModelConfig
from teleflm.data.special_ids import CONFIG, GENERATION, generation_config, special_ids
from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    TOKENIZER_FILES,
    copy_tokenizer,
    has_tokenizer,
    read_object,
    special_tokens,
)
from teleflm.errors import CheckpointError
from teleflm.growth.state import LazyState
from teleflm.model.axes import EMBEDDING, HEAD, LAST_GAIN, parameter_names, parameter_of
from teleflm.model.region import Region, whole
from teleflm.parallel.ranks import Ranks

ExportDtype = Literal["fp32", "bf16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SHARD_BYTES = 5_000_000_000  # past it, transformers' own files come in shards too
_CODE_FILES = ("configuration_teleflm.py", "modeling_teleflm.py")
_OWN_FILES = (CONFIG, GENERATION, "README.md")


def export(
    source: Opened,
    out: Path,
    kind: ExportKind,
    dtype: ExportDtype = "fp32",
    *,
    force: bool = False,
    card: CardFacts | None = None,
    group: dist.ProcessGroup | None = None,
    tell: Callable[[int], object] = lambda _: None,
) -> None:
    """Write `source` to the folder `out`, which appears whole or not at all; where
    `torch.distributed` is initialised, all ranks do.

    Args:
        source: read piece by piece, so that it may be larger than the memory.
        out: where, on a disk that all ranks see.
        kind: the format.
        dtype: of the weights.
        force: replace an earlier export in `out`.
        card: measurements for the model card.
        group: a process group that carries CPU tensors (gloo), the world's where None.
        tell: is told the bytes that this rank made since the last call, of `export_bytes` for it.

    Raises:
        CheckpointError: `out` is not empty and `force` is not given, or is no export; a weight is
            not finite.
        ConfigError: the format cannot hold this shape.
        MachineError: there is too little room on the disk, or it fails.
        RunLockedError: another process is writing the same export.
    """
    ranks = Ranks(group)
    # The folder itself, not a link to it, is what gets replaced.
    out = out.resolve()

    def begin() -> dict[str, str]:
        check_export_place(out, force)
        return _texts(source, kind, dtype, card or CardFacts())

    texts = ranks.from_first(begin)

    def complete(folder: Path, _: Records) -> None:
        if source.tokenizer is not None:
            copy_tokenizer(source.tokenizer, folder)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    work = None
    if source.digest is not None:
        work = f"{source.digest} {source.state.standing()} {kind}"
    files = _files(source.ordinary, kind, _DTYPES[dtype])
    write_folder(out, files, complete, work=work, ranks=ranks, tell=tell)


def export_bytes(
    model: ModelConfig, dtype: ExportDtype = "fp32", rank: int = 0, ranks: int = 1
) -> int:
    """What a rank writes of an export, but for headers: with one, what it takes on disk."""
    mine = list(_shards(model, _DTYPES[dtype]).values())[rank::ranks]
    return sum(_bytes(model, name, _DTYPES[dtype]) for names in mine for name in names)


def check_export_place(out: Path, force: bool) -> None:
    """Refuse to export to where something else is, or an export that is not to be replaced.

    Raises:
        CheckpointError: naming it.
    """
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


def _texts(source: Opened, kind: ExportKind, dtype: ExportDtype, card: CardFacts) -> dict[str, str]:
    """The files of an export that are no weights, but for the tokenizer's own."""
    model, tokenizer = source.ordinary.model, source.tokenizer
    config = {**to_huggingface(model, kind), **special_ids(tokenizer)}
    torch_dtype = str(_DTYPES[dtype]).removeprefix("torch.")
    texts = {
        CONFIG: _as_json({**config, "torch_dtype": torch_dtype}),
        GENERATION: _as_json(generation_config(tokenizer)),
        "README.md": model_card(source, kind, dtype, card),
    }
    if kind == "teleflm":
        released = resources.files("teleflm.checkpoint") / "released"
        texts |= {name: (released / name).read_text(encoding="utf-8") for name in _CODE_FILES}
    if tokenizer is not None and has_tokenizer(tokenizer):
        texts[SETTINGS] = _tokenizer_config(tokenizer, model.max_position_embeddings)
    shards = _shards(model, _DTYPES[dtype])
    if len(shards) > 1:
        weight_map = {name: file for file, names in shards.items() for name in names}
        sizes = {"total_size": export_bytes(model, dtype)}
        index = {"metadata": sizes, "weight_map": dict(sorted(weight_map.items()))}
        texts[INDEX] = _as_json(index)
    return texts


def _files(state: LazyState, kind: ExportKind, dtype: torch.dtype) -> dict[str, list[Block]]:
    """The blocks of each weight file."""
    return {
        file: [_block(state, name, kind, dtype) for name in names]
        for file, names in _shards(state.model, dtype).items()
    }


def _block(state: LazyState, name: str, kind: ExportKind, dtype: torch.dtype) -> Block:
    """The tensor under `name`, with the multiplier that most formats have no other place for."""
    model, shape = state.model, parameter_of(name).shape(state.model)
    fold = 1.0 if family_of(kind).has_multipliers else _folds(model).get(name, 1.0)

    def read(region: Region) -> Tensor:
        # In fp32, before any cast.
        return (state.weight(name, region).float() * fold).to(dtype)

    return Block(name, None, shape, dtype, partial(in_pieces, read, whole(shape), dtype))


def _folds(model: ModelConfig) -> dict[str, float]:
    """Multipliers by the tensor that takes them; where the head is tied, the last gain takes what
    the logits' is beyond the embedding's."""
    embedding, logits = model.input_mult, model.logit_multiplier
    last = {HEAD: logits} if model.has_head else {LAST_GAIN: logits / embedding}
    return {EMBEDDING: embedding, **last}


def _shards(model: ModelConfig, dtype: torch.dtype) -> dict[str, list[str]]:
    """The tensor names in each weight file, as safetensors orders them."""
    shards: list[list[str]] = [[]]
    held = 0
    for name in parameter_names(model):
        size = _bytes(model, name, dtype)
        if shards[-1] and held + size > _SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    if len(shards) == 1:
        return {WEIGHTS: sorted(shards[0])}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": sorted(names)
        for number, names in enumerate(shards, start=1)
    }


def _bytes(model: ModelConfig, name: str, dtype: torch.dtype) -> int:
    return torch.Size(parameter_of(name).shape(model)).numel() * dtype.itemsize


def _tokenizer_config(tokenizer: Path, context: int) -> str:
    names = special_tokens(tokenizer, read_object(tokenizer / DEFINITION))
    config = {**names, **read_object(tokenizer / SETTINGS)}
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    return _as_json({**config, "model_max_length": context})


def _as_json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
