"""Exports that transformers and the serving stacks load: Hugging Face folders.

`granite` keeps every weight bit for bit and puts the multipliers into its config; `teleflm` is the
released layout with its own code files; the others fold the multipliers into the embedding and the
head (or, where that is tied, the last gain), in fp32 and before any cast.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teleflm.checkpoint.folder import in_pieces
from teleflm.checkpoint.format import Beside, Format
from teleflm.checkpoint.open import Opened
from teleflm.checkpoint.pretrained import INDEX, WEIGHTS
from teleflm.checkpoint.writer import Block
from teleflm.config.families import check_holds, family_of
from teleflm.config.formats import ExportDtype, HubKind
from teleflm.config.huggingface import to_huggingface
from teleflm.config.model import ModelConfig
from teleflm.data.chat_template import find_template
from teleflm.data.special_ids import CONFIG, GENERATION, generation_config, special_ids
from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    has_tokenizer,
    read_object,
    special_tokens,
)
from teleflm.growth.state import LazyState
from teleflm.model.axes import EMBEDDING, HEAD, LAST_GAIN, parameter_names, parameter_of
from teleflm.model.region import Region, whole

_DTYPES: dict[ExportDtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SHARD_BYTES = 5_000_000_000  # past it, transformers' own files come in shards too


class HubFormat(Format):
    """A family of transformers, or the released layout with its code."""

    library = "transformers"
    dtypes = _DTYPES

    def __init__(self, kind: HubKind) -> None:
        self.kind = self._kind = kind
        self._family = family_of(kind)

    def check(self, model: ModelConfig) -> None:
        check_holds(model, self._kind)

    def files(self, state: LazyState, dtype: ExportDtype) -> dict[str, list[Block]]:
        return {
            file: [self._block(state, name, _DTYPES[dtype]) for name in names]
            for file, names in _shards(state.model, _DTYPES[dtype]).items()
        }

    def beside(self, source: Opened, dtype: ExportDtype) -> Beside:
        model, tokenizer = source.ordinary.model, source.tokenizer
        config = {**to_huggingface(model, self._kind), **special_ids(tokenizer)}
        torch_dtype = str(_DTYPES[dtype]).removeprefix("torch.")
        texts = {
            CONFIG: _as_json({**config, "torch_dtype": torch_dtype}),
            GENERATION: _as_json(generation_config(tokenizer)),
        }
        released = resources.files("teleflm.checkpoint") / "released"
        texts |= {name: (released / name).read_text("utf-8") for name in self._family.code}
        if tokenizer is not None and has_tokenizer(tokenizer):
            texts[SETTINGS] = _tokenizer_config(tokenizer, model.max_position_embeddings)
        shards = _shards(model, _DTYPES[dtype])
        if len(shards) > 1:
            texts[INDEX] = _index(model, shards, _DTYPES[dtype])
        return Beside(self._use(source, dtype), texts, copies_tokenizer=tokenizer is not None)

    def writes(self, name: str) -> bool:
        is_weights = name == INDEX or name.endswith(".safetensors")
        return is_weights or name in (*self._family.code, CONFIG, GENERATION)

    def _block(self, state: LazyState, name: str, dtype: torch.dtype) -> Block:
        """The tensor under `name`, with the multiplier that most have no other place for."""
        shape = parameter_of(name).shape(state.model)
        read = folded_weight(state, name, is_folded=not self._family.has_multipliers)

        def cast(region: Region) -> Tensor:
            return read(region).to(dtype)

        return Block(name, None, shape, dtype, partial(in_pieces, cast, whole(shape), dtype))

    def _use(self, source: Opened, dtype: ExportDtype) -> str:
        plain = (
            f"The multipliers are folded into the weights, so it is a plain {self.kind} model. No "
            "custom code is needed."
        )
        snippet = "\n".join(_snippet(source, bool(self._family.code)))
        about = self._family.about or plain
        return f"{about} Weights are in {dtype}.\n\n```python\n{snippet}\n```\n"


def folded_weight(state: LazyState, name: str, *, is_folded: bool) -> Callable[[Region], Tensor]:
    """What gives a region of the tensor `name` in fp32, multiplied by what the format has no other
    place for where `is_folded`."""
    fold = _folds(state.model).get(name, 1.0) if is_folded else 1.0

    def read(region: Region) -> Tensor:
        return state.weight(name, region).float() * fold

    return read


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


def _index(model: ModelConfig, shards: dict[str, list[str]], dtype: torch.dtype) -> str:
    places = {name: file for file, names in shards.items() for name in names}
    total = sum(_bytes(model, name, dtype) for name in places)
    return _as_json({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def _bytes(model: ModelConfig, name: str, dtype: torch.dtype) -> int:
    return torch.Size(parameter_of(name).shape(model)).numel() * dtype.itemsize


def _snippet(source: Opened, has_code: bool) -> Iterator[str]:
    trust = ", trust_remote_code=True" if has_code else ""
    if not has_tokenizer(source.tokenizer):
        yield "from transformers import AutoModelForCausalLM"
        yield ""
        yield f'model = AutoModelForCausalLM.from_pretrained("PATH"{trust})'
        return
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield f'tokenizer = AutoTokenizer.from_pretrained("PATH"{trust})'
    yield f'model = AutoModelForCausalLM.from_pretrained("PATH"{trust})'
    if source.chat_template is None:
        yield 'inputs = tokenizer("In the beginning", return_tensors="pt")'
        yield "output = model.generate(**inputs, max_new_tokens=50)"
        yield "print(tokenizer.decode(output[0]))"
        return
    yield 'talk = [{"role": "user", "content": "Who are you?"}]'
    yield "inputs = tokenizer.apply_chat_template("
    yield '    talk, add_generation_prompt=True, return_dict=True, return_tensors="pt"'
    yield ")"
    yield "output = model.generate(**inputs, max_new_tokens=50)"
    yield 'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))'


def _tokenizer_config(tokenizer: Path, context: int) -> str:
    names = special_tokens(tokenizer, read_object(tokenizer / DEFINITION))
    config = {**names, **read_object(tokenizer / SETTINGS)}
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    if find_template(tokenizer) is not None:
        # It would have transformers cut the template's own marks into letters.
        config.pop("split_special_tokens", None)
    return _as_json({**config, "model_max_length": context})


def _as_json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
