"""Exports for llama.cpp and what is built on it: one GGUF file, streamed from the state.

The `gguf` package makes what stands before the tensors and packs their values; it would hold the
tensors in memory, or in a temporary file, so that the bytes go by our own writer.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teleflm.checkpoint.folder import in_pieces
from teleflm.checkpoint.format import Beside, Format
from teleflm.checkpoint.hub_format import folded_weight
from teleflm.checkpoint.open import Opened
from teleflm.checkpoint.writer import Block
from teleflm.config.formats import ExportDtype
from teleflm.config.gguf import Architecture, architecture_of, shape_keys
from teleflm.config.model import ModelConfig
from teleflm.config.rope import Llama3Rope
from teleflm.data.gguf_tokenizer import normalisation, tokenizer_keys
from teleflm.errors import CheckpointError, MissingExtraError
from teleflm.growth.state import LazyState
from teleflm.model.axes import layer_of, parameter_names, parameter_of
from teleflm.model.region import Region, whole
from teleflm.model.rope import inverse_frequencies

FILE = "model.gguf"
_ALIGNMENT, _BLOCK, _BLOCK_BYTES = 32, 32, 34
_NAMES = {
    "embed_tokens": "token_embd",
    "input_layernorm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "norm": "output_norm",
    "lm_head": "output",
}
_FACTORS = "rope_freqs.weight"
_PAD = ""
# Of a packed one, that of its bytes.
_DTYPES: dict[ExportDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "q8_0": torch.uint8,
}
_FILE_TYPES: dict[ExportDtype, str] = {
    "fp32": "ALL_F32",
    "bf16": "MOSTLY_BF16",
    "fp16": "MOSTLY_F16",
    "q8_0": "MOSTLY_Q8_0",
}


class GgufFormat(Format):
    """llama.cpp's."""

    kind = "gguf"
    library = "gguf"
    dtypes = _DTYPES

    def check(self, model: ModelConfig) -> None:
        architecture_of(model)
        gguf_package()

    def files(self, state: LazyState, dtype: ExportDtype) -> dict[str, list[Block]]:
        architecture = architecture_of(state.model)
        blocks: list[Block] = []
        for block in _tensors(state, architecture, _DTYPES[dtype]):
            blocks.append(block)
            if gap := -block.bytes % _ALIGNMENT:
                blocks.append(_filled(_PAD, torch.zeros(gap, dtype=torch.uint8)))
        return {FILE: blocks}

    def beside(self, source: Opened, dtype: ExportDtype) -> Beside:
        state = source.ordinary
        keys = tokenizer_keys(source.tokenizer, state.model.vocab_size)
        header = _header(source.name, state.model, dtype, keys, self.files(state, dtype)[FILE])
        said = "".join(f" {note[0].upper()}{note[1:]}." for note in self.notes(source, dtype))
        use = (
            f"A file for llama.cpp and what is built on it, of the architecture "
            f"{architecture_of(state.model).name}. Weights are in {dtype}, norms and biases in "
            f"fp32.{said}\n\n```sh\n{_command(source)}\n```\n"
        )
        return Beside(use, headers={FILE: header})

    def writes(self, name: str) -> bool:
        return name == FILE

    def notes(self, source: Opened, dtype: ExportDtype) -> Sequence[str]:
        notes = []
        if normalisation(source.tokenizer):
            notes.append(
                "the tokenizer brings a text into Unicode's NFC first, which llama.cpp does not: "
                "give it texts in NFC"
            )
        if dtype == "q8_0":
            names = [name for name in _wide(source.state.model, divides=False)]
            if names:
                some = ", ".join(dict.fromkeys(_name(n, layer="N") for n in names))
                notes.append(
                    f"{len(names)} tensors are in fp16 and not in q8_0, as {_BLOCK} does not "
                    f"divide the length of their rows: {some}"
                )
        return notes


def gguf_package() -> Any:
    """The library. Raises MissingExtraError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf") from None
    return gguf


def _wide(model: ModelConfig, *, divides: bool) -> Iterator[str]:
    """The matrices whose rows q8_0's blocks divide, or do not."""
    for name in parameter_names(model):
        shape = parameter_of(name).shape(model)
        if len(shape) == 2 and (shape[-1] % _BLOCK == 0) is divides:
            yield name


def _name(name: str, layer: str | None = None) -> str:
    """llama.cpp's name of a parameter."""
    *_, module, kind = name.split(".")
    number = layer_of(name)
    within = "" if number is None else f"blk.{number if layer is None else layer}."
    return f"{within}{_NAMES[module]}.{kind}"


def _tensors(state: LazyState, architecture: Architecture, dtype: torch.dtype) -> Iterator[Block]:
    for name in parameter_names(state.model):
        yield _block(state, name, architecture, dtype)
    if isinstance(state.model.rope_scaling, Llama3Rope):
        plain = inverse_frequencies(state.model.model_copy(update={"rope_scaling": None}))
        yield _filled(_FACTORS, plain / inverse_frequencies(state.model))


def _filled(name: str, values: Tensor) -> Block:
    return Block(name, None, tuple(values.shape), values.dtype, lambda: iter((values,)))


def _block(state: LazyState, name: str, architecture: Architecture, dtype: torch.dtype) -> Block:
    shape = parameter_of(name).shape(state.model)
    read = folded_weight(state, name, is_folded=not architecture.has_multipliers)
    if architecture.pairs_neighbours and _turns(name):
        read = _as_neighbours(read, shape[0], state.model.head_dim)
    stored = shape
    if len(shape) == 1:
        dtype = torch.float32
    elif dtype is torch.uint8 and shape[1] % _BLOCK:
        dtype = torch.float16
    elif dtype is torch.uint8:
        stored = (shape[0], shape[1] // _BLOCK * _BLOCK_BYTES)

    def packed(region: Region) -> Tensor:
        return _packed(read(region), dtype, name)

    # A piece is as long in fp32 as it is read.
    values = partial(in_pieces, packed, whole(shape), torch.float32)
    return Block(_name(name), None, stored, dtype, values)


def _turns(name: str) -> bool:
    """Whether RoPE turns what this parameter makes."""
    return ".self_attn.q_proj." in name or ".self_attn.k_proj." in name


def _as_neighbours(
    read: Callable[[Region], Tensor], rows: int, head_dim: int
) -> Callable[[Region], Tensor]:
    """Rows i and i + head_dim / 2 of each head one behind the other; whole heads are read."""

    def turned(region: Region) -> Tensor:
        side, *rest = region
        start, stop, _ = side.indices(rows)
        first = start // head_dim * head_dim
        last = -(-stop // head_dim) * head_dim
        value = read((slice(first, last), *rest))
        heads = value.reshape(-1, 2, head_dim // 2, *value.shape[1:]).transpose(1, 2)
        return heads.reshape(value.shape)[start - first : stop - first]

    return turned


def _packed(value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """fp32 in what is stored. Raises CheckpointError for values that it cannot reach."""
    limit = torch.finfo(torch.float16).max
    reach = {torch.float16: limit, torch.uint8: 127 * limit}.get(dtype, math.inf)
    if value.numel() and float(value.abs().max()) > reach:
        raise CheckpointError(
            f"tensor {name} has values beyond {reach:.3g}, which fp16 cannot hold; export in bf16 "
            "or fp32"
        )
    if dtype is not torch.uint8:
        return value.to(dtype)
    gguf = gguf_package()
    packed = gguf.quants.quantize(value.contiguous().numpy(), gguf.GGMLQuantizationType.Q8_0)
    return torch.from_numpy(np.ascontiguousarray(packed))


def _command(source: Opened) -> str:
    """What runs it: a talk where it has a chat template, else a text."""
    if source.chat_template is not None:
        return f"llama-cli -m {FILE}"
    return f"llama-completion -m {FILE} -no-cnv -p 'In the beginning' -n 40"


def _header(
    name: str,
    model: ModelConfig,
    dtype: ExportDtype,
    tokenizer: dict[str, Any],
    blocks: Sequence[Block],
) -> bytes:
    """Everything before the first tensor."""
    gguf = gguf_package()
    kinds = gguf.GGMLQuantizationType
    raw = {torch.bfloat16: kinds.BF16, torch.uint8: kinds.Q8_0}
    numpy = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}
    architecture = architecture_of(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        writer = gguf.GGUFWriter(path, architecture.name)
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in shape_keys(model, architecture).items():
            _add(writer, f"{architecture.name}.{key}", value)
        for key, value in tokenizer.items():
            _add(writer, key, value)
        for block in blocks:
            if block.name != _PAD:
                writer.add_tensor_info(
                    block.name,
                    block.shape,
                    np.dtype(numpy.get(block.dtype, np.uint8)),
                    block.bytes,
                    raw.get(block.dtype),
                )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = path.read_bytes()
    return header + bytes(-len(header) % _ALIGNMENT)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value:
        writer.add_array(key, value)
