"""Weight files from elsewhere: safetensors and PyTorch's pickles, read region by region.

A file is data: nothing in it is run, and of a tensor no more is read than is asked for.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from teleflm.errors import CheckpointError
from teleflm.model.region import Region

_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
# Of any other dtype or kind a tensor is not a plain weight.
READABLE = frozenset(_DTYPES.values())


@dataclass(frozen=True)
class Stored:
    """A tensor in an open file.

    Attributes:
        shape: its shape.
        dtype: its dtype, in words where that is none of `READABLE`.
        read: gives a region of it, which may be a view into the file.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    read: Callable[[Region], Tensor]


@contextmanager
def opened(file: Path) -> Iterator[dict[str, Stored]]:
    """The tensors in a file by name; open it for a short while, as pages that were read count as
    the process's memory until it is closed.

    Raises:
        CheckpointError: the file is damaged, or a pickle that holds more than tensors.
    """
    if file.suffix != ".safetensors":
        yield _unpickled(file)
        return
    try:
        with safe_open(file, framework="pt") as tensors:
            yield {name: _sliced(tensors.get_slice(name)) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: damaged safetensors file ({error}); copy or download it again"
        ) from None


def refuse_gguf(path: Path) -> None:
    """Say of a GGUF file, or a folder of one, that it is not read.

    Raises:
        CheckpointError: it is one.
    """
    file = path if path.is_file() else next(iter(sorted(path.glob("*.gguf"))), None)
    if file is not None and file.suffix == ".gguf":
        raise CheckpointError(
            f"{file}: GGUF is written and not read; give the checkpoint or the Hugging Face folder "
            "that it was made from"
        )


def _sliced(part: Any) -> Stored:
    dtype = part.get_dtype()
    return Stored(tuple(part.get_shape()), _DTYPES.get(dtype, dtype), part.__getitem__)


def _unpickled(file: Path) -> dict[str, Stored]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{file}: a pickle with more than tensors in it, or a damaged one; nothing in it was "
            "run and nothing loaded. Get the model as safetensors"
        ) from None
    except Exception as error:  # a damaged pickle fails in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{file}: damaged, or written by PyTorch before 1.6 ({reason}); copy or download it "
            "again, or get the model as safetensors"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{file}: holds a {type(loaded).__name__}, not tensors by name; is it a weight file?"
        )
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{file}: {name!r} is a {type(value).__name__}, not a tensor; is it a weight file?"
            )
    return {str(name): _whole(tensor.detach()) for name, tensor in loaded.items()}


def _whole(tensor: Tensor) -> Stored:
    is_plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    dtype = tensor.dtype if tensor.dtype in READABLE and is_plain else _in_words(tensor)
    return Stored(tuple(tensor.shape), dtype, tensor.__getitem__)


def _in_words(tensor: Tensor) -> str:
    return f"{tensor.dtype}, {tensor.layout}, {tensor.device}"
