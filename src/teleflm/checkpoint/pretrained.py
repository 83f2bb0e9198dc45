"""Models in: a Hugging Face folder becomes a state that is read in pieces.

The folder is data: its config and tensors are read and checked, no code of it is run.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from teleflm.checkpoint.manifest import record_file
from teleflm.checkpoint.weight_files import Stored, opened, refuse_gguf
from teleflm.config.base import build
from teleflm.config.huggingface import from_huggingface, weight_folds
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import read_json
from teleflm.errors import CheckpointError
from teleflm.growth.event import Event
from teleflm.growth.state import Kind, LazyState, all_finite
from teleflm.model.axes import EMBEDDING, HEAD, LAST_GAIN, parameter_names, parameter_of, pattern_of
from teleflm.model.region import Region, region_shape, row_stretches
from teleflm.parallel.ranks import Ranks

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = "pytorch_model.bin"
_PICKLED_INDEX = "pytorch_model.bin.index.json"
_ENTRIES_AT_A_TIME = 8 << 20
# Some files carry RoPE's frequencies or tables, which follow from the config.
_DERIVED = re.compile(r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|rope\.freqs)")


def open_pretrained(
    folder: Path, group: dist.ProcessGroup | None = None, *, untie: bool = False
) -> LazyState:
    """The state in a Hugging Face folder, to be read piece by piece: the weights, and moments of
    zero. The folder holds the `config.json` of a family that we know and the weights, safetensors
    or pickles, one file or several with their index.

    Weights come in float32, and in float64 where they are stored so or a multiplier is folded into
    them that is no power of two. The lineage is one event, whose `parent` is the SHA-256 of what
    `sha256sum` prints of config.json and the weight files in the order of their names. Every file
    is read once for it, by each rank of the group a share.

    With `untie` a head that is tied to the embedding is a copy of it, and a parameter of its own.
    If one is stored all the same, it counts, as in transformers.

    Raises:
        CheckpointError: no such model, a damaged file, or tensors that are not those of the config;
            that a value is not finite is found when it is read.
        ConfigError: another architecture, or a feature that our network does not have.
    """
    ranks = Ranks(group)
    found = ranks.agreed(lambda: _find(folder, untie))
    digest = _digest(folder, found.files, ranks)

    def read(kind: Kind, name: str, region: Region) -> Tensor:
        if kind != "weights":
            return torch.zeros(region_shape(region), dtype=found.dtype(name))
        return found.weight(name, region)

    event = Event(operator="import", to=found.model, parent=digest)
    return LazyState.untrained(event, read, found.dtype(LAST_GAIN))


@dataclass(frozen=True)
class _Found:
    """A folder that was checked, but for the values.

    Attributes:
        model: its model.
        folds: what a parameter is multiplied by, by its pattern; 1 where it is not listed.
        places: the file of each parameter.
        stored: the dtype of each parameter there.
        copied: the parameters that are stored under the name of another one.
        files: the weight files, by name.
    """

    model: ModelConfig
    folds: Mapping[str, float]
    places: Mapping[str, Path]
    stored: Mapping[str, torch.dtype]
    copied: Mapping[str, str]
    files: list[Path]

    def dtype(self, name: str) -> torch.dtype:
        """The precision that holds a parameter as it is stored, with what is folded into it."""
        mantissa, _ = math.frexp(self._fold(name))
        is_wide = self.stored[name] is torch.float64 or mantissa != 0.5
        return torch.float64 if is_wide else torch.float32

    def weight(self, name: str, region: Region) -> Tensor:
        """A region of a parameter."""
        with opened(self.places[name]) as tensors:
            value = (
                tensors[self.copied.get(name, name)].read(region).to(self.dtype(name), copy=True)
            )
        value *= self._fold(name)
        if not all_finite(value):
            raise CheckpointError(
                f"{self.places[name]}: tensor {name} holds NaN or infinity; copy or download the "
                "weights again, or use an earlier state of the model"
            )
        return value

    def _fold(self, name: str) -> float:
        return self.folds.get(pattern_of(name), 1.0)


def _find(folder: Path, untie: bool) -> _Found:
    config = folder / CONFIG
    if not config.is_file():
        refuse_gguf(folder)
        raise CheckpointError(
            f"{folder}: no {CONFIG}; give the folder of a Hugging Face model, config and weights"
        )
    data = read_json(config)
    is_tied = untie and bool(data.get("tie_word_embeddings"))
    if is_tied:
        data = {**data, "tie_word_embeddings": False}
    model = build(ModelConfig, from_huggingface(data, str(config)), str(config))
    places = _places(folder)
    copied = {HEAD: EMBEDDING} if is_tied and HEAD not in places else {}
    stored = _check(model, places, folder, copied)
    if not model.has_head and HEAD in places:
        _check_tied(places)
    return _Found(
        model=model,
        folds=weight_folds(data, model, str(config)),
        places={name: places[copied.get(name, name)] for name in stored},
        stored=stored,
        copied=copied,
        files=sorted(set(places.values())),
    )


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor: as the index says, where there is one.

    transformers would take the single file instead, and of an index no more than the files' names.
    Where that makes a difference the folder is refused, here and in `_check`: it holds files of
    two saves, or an index of another one.
    """
    for index, single in ((INDEX, WEIGHTS), (_PICKLED_INDEX, _PICKLED)):
        file = folder / single
        if (folder / index).is_file():
            places = _indexed_places(folder / index, file)
            _refuse_others(file, set(places.values()))
            return places
        if file.is_file():
            _refuse_others(file, {file})
            with opened(file) as tensors:
                return dict.fromkeys(tensors, file)
    raise CheckpointError(
        f"{folder}: none of {WEIGHTS}, {INDEX}, {_PICKLED} and {_PICKLED_INDEX}; copy the weights "
        "there"
    )


def _refuse_others(single: Path, ours: Set[Path]) -> None:
    """Refuse a single weight file and shards that belong to no part of the model."""
    is_shard = re.compile(rf"{single.stem}-\d+-of-\d+{single.suffix}").fullmatch
    for file in sorted(single.parent.iterdir()):
        if file not in ours and (file == single or is_shard(file.name)):
            raise CheckpointError(
                f"{file}: not of the same save as {min(ours).name}, which is there too; remove the "
                "files of the one that you do not mean, and its index"
            )


def _indexed_places(index: Path, single: Path) -> dict[str, Path]:
    try:
        files = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{index}: not an index of weights ({error}); copy or download it again"
        ) from None
    for name in files.values():
        # An index from elsewhere names files of its own folder, and no others.
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: {name!r} is not a file name of this folder")
        if not (index.parent / name).is_file():
            whole = f", or remove {index} if all is in {single.name}" if single.is_file() else ""
            raise CheckpointError(
                f"{index.parent / name}: this shard is missing; copy or download it again{whole}"
            )
    if not files:
        raise CheckpointError(f"{index}: names no weights; copy or download it again")
    return {tensor: index.parent / name for tensor, name in files.items()}


def _check(
    model: ModelConfig, places: Mapping[str, Path], folder: Path, copied: Mapping[str, str]
) -> dict[str, torch.dtype]:
    """The dtypes of the model's tensors, once they are those that the config asks for."""
    # A head may be stored where it is tied or copied, too.
    expected = dict.fromkeys((*parameter_names(model), HEAD))
    dtypes: dict[str, torch.dtype] = {}
    for file in dict.fromkeys(places.values()):
        promised = [name for name in places if places[name] == file]
        with opened(file) as tensors:
            for name in (*promised, *tensors):
                if name not in expected and not _DERIVED.fullmatch(name):
                    raise CheckpointError(
                        f"{file}: tensor {name} is not part of the model that {folder / CONFIG} "
                        "describes; is it the config of another model?"
                    )
                if name in expected and places.get(name) != file:
                    where = f"in {places[name].name} too" if name in places else "missing"
                    raise CheckpointError(
                        f"{file}: tensor {name} is {where} by the index, so index and files are of "
                        "two saves; copy or download them all again"
                    )
            for name in (n for n in promised if n in expected):
                dtypes[name] = _checked_dtype(model, name, tensors.get(name), file)
    sources = {name: copied.get(name, name) for name in parameter_names(model)}
    missing = next((name for name in sources.values() if name not in dtypes), None)
    if missing is not None:
        raise CheckpointError(
            f"{folder}: tensor {missing} is missing; copy or download the weights again"
        )
    return {name: dtypes[source] for name, source in sources.items()}


def _check_tied(places: Mapping[str, Path]) -> None:
    """Refuse a head that is stored although it is tied, and is not the embedding: transformers
    would take it for one of its own."""
    with opened(places[HEAD]) as heads, opened(places[EMBEDDING]) as embeddings:
        head, embedding = heads[HEAD], embeddings[EMBEDDING]
        is_same = all(
            torch.equal(head.read(region), embedding.read(region))
            for region in row_stretches(head.shape, _ENTRIES_AT_A_TIME)
        )
    if not is_same:
        raise CheckpointError(
            f"{places[HEAD]}: tensor {HEAD} is not the embedding, though {CONFIG} ties the two; "
            "`teleflm import --untie` takes it for a head of its own, as transformers does"
        )


def _checked_dtype(model: ModelConfig, name: str, tensor: Stored | None, file: Path) -> torch.dtype:
    if tensor is None:
        raise CheckpointError(
            f"{file}: tensor {name} is missing, and the index says that it is here; copy or "
            "download both again"
        )
    wanted = parameter_of(name).shape(model)
    if tensor.shape != wanted:
        raise CheckpointError(
            f"{file}: tensor {name} is {list(tensor.shape)}, but {CONFIG} asks for {list(wanted)}; "
            "is it the config of another model?"
        )
    if isinstance(tensor.dtype, str):
        raise CheckpointError(
            f"{file}: tensor {name} is stored as {tensor.dtype}; quantised weights cannot be read, "
            "use the model in bf16 or fp32"
        )
    return tensor.dtype


def _digest(folder: Path, files: list[Path], ranks: Ranks) -> str:
    """SHA-256 over the names and SHA-256s of config.json and these files."""
    names = [CONFIG, *(file.name for file in files)]

    def share() -> list[tuple[str, str]]:
        mine = names[ranks.rank :: ranks.count]
        with ThreadPoolExecutor() as pool:
            records = pool.map(record_file, (folder / name for name in mine))
            return [(name, record.sha256) for name, record in zip(mine, records, strict=True)]

    found = {name: sha256 for shared in ranks.gathered(share) for name, sha256 in shared}
    lines = (f"{found[name]}  {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
