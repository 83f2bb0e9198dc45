"""Counting what a step does: bytes that live, FLOPs and collectives.

It sees every operator on its way to the kernel, on tensors with values and on fake ones alike, so
that a real step and its dry run are counted by the same rules.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from unittest import mock
from weakref import finalize

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._op_schema import OpSchema
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from teleflm.model.documents import BACKWARD, FORWARD

T = TypeVar("T")

aten = torch.ops.aten
# What the operators of both of PyTorch's families of collectives do.
_COLLECTIVES = {
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce",
    "all_reduce": "all_reduce",
    "broadcast_": "broadcast",
    "send": "send",
    "recv_": "recv",
}
_NO_TRAFFIC = {"wait_tensor", "barrier", "monitored_barrier_", "_wrap_tensor_autograd"}


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind: how many, and the bytes of the larger of what goes in and out."""

    count: int
    bytes: int


@dataclass(frozen=True)
class Work:
    """What a part of a step did.

    Attributes:
        rise: the most bytes that were alive during it, beyond those at its start.
        left: bytes at its end, beyond those at its start; what it gives is alive then.
        flops: by operator.
        counts, bytes: of collectives, by mesh axis and kind.
    """

    rise: int
    left: int
    flops: Counter[str]
    counts: Counter[str]
    bytes: Counter[str]


class Counting(TorchDispatchMode):
    """Counts all operators inside of it.

    Args:
        axes: the mesh axis of each process group, by its ranks.

    Attributes:
        live: bytes of the storages of tensors that are alive.
        peak: the most that `live` was.
        flops: of matrix products and attention by operator, 2 for a multiplication and addition.
    """

    def __init__(self, axes: Mapping[tuple[int, ...], str]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.flops: Counter[str] = Counter()
        self._axes = axes
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._storages: dict[int, int] = {}

    @property
    def collectives(self) -> dict[str, Traffic]:
        """By mesh axis and kind, such as `tp.all_gather`."""
        return {
            name: Traffic(self._counts[name], self._bytes[name]) for name in sorted(self._counts)
        }

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Take tensors into account that were there before."""
        for tensor in tensors:
            self._track(tensor)

    def watch(self, part: Callable[[], T]) -> tuple[T, Work]:
        """Do a part of the step; what it gives, and what it did."""
        live, peak, self.peak = self.live, self.peak, self.live
        tallies = self.flops, self._counts, self._bytes
        before = [tally.copy() for tally in tallies]
        given = part()
        did = [tally - past for tally, past in zip(tallies, before, strict=True)]
        work = Work(self.peak - live, self.live - live, *did)
        self.peak = max(peak, self.peak)
        return given, work

    def repeat(self, work: Work, give: Callable[[], T]) -> T:
        """Count a part as one that was watched; `give` makes what it gives, and nothing else."""
        live, peak = self.live, self.peak
        given = give()
        self.live, self.peak = live + work.left, max(peak, live + work.rise)
        self.flops += work.flops
        self._counts += work.counts
        self._bytes += work.bytes
        return given

    def __enter__(self) -> "Counting":
        self._patched = _seen_as_it_is(self._resized)
        self._patched.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patched.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            # What it computes with comes by here next.
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._track(leaf)
        packet = func._overloadpacket
        formula = _FLOPS.get(packet)
        if formula is not None:
            self.flops[packet.__name__] += formula(*args, **(kwargs or {}), out_val=out)
        elif func.namespace in ("c10d", "_c10d_functional"):
            self._count_collective(packet.__name__, args, out)
        return out

    def _count_collective(self, operator: str, args: Sequence[Any], out: Any) -> None:
        kind = _COLLECTIVES.get(operator)
        if kind is None:
            assert operator in _NO_TRAFFIC, operator
            return
        name = f"{self._axes[_group_ranks(args)]}.{kind}"
        self._counts[name] += 1
        self._bytes[name] += max(_bytes(value) for value in (*args, out))

    def _track(self, tensor: Tensor) -> None:
        if tensor.device.type == "meta":
            # It only has a shape.
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._storages.get(key)
        if known is None:
            self._storages[key] = 0
            finalize(storage, self._set, key, None)
        if known != size:
            self._set(key, size)

    def _resized(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._storages:
            self._set(storage._cdata, storage.nbytes())

    def _set(self, key: int, size: int | None) -> None:
        self.live += (size or 0) - self._storages[key]
        self.peak = max(self.peak, self.live)
        if size is None:
            del self._storages[key]
        else:
            self._storages[key] = size


@contextmanager
def _seen_as_it_is(resized: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """What operators do not tell, and what is told of that nobody does.

    FSDP frees gathered weights by resizing their storages. And DTensor finds out the shape of what
    an operator gives by trying it on the whole tensor, in its head.
    """
    resize = torch.UntypedStorage.resize_
    imagine = ShardingPropagator._propagate_tensor_meta_non_cached

    def resize_and_tell(storage: torch.UntypedStorage, size: int) -> Any:
        result = resize(storage, size)
        resized(storage)
        return result

    def imagine_unseen(propagator: ShardingPropagator, schema: OpSchema) -> Any:
        with _disable_current_modes():
            return imagine(propagator, schema)

    with (
        mock.patch.object(torch.UntypedStorage, "resize_", resize_and_tell),
        mock.patch.object(ShardingPropagator, imagine.__name__, imagine_unseen),
    ):
        yield


def _group_ranks(args: Sequence[Any]) -> tuple[int, ...]:
    """The ranks of a collective's group, which one family is given itself and the other by name."""
    for value in args:
        if isinstance(value, torch.ScriptObject) and "ProcessGroup" in str(value._type()):
            return tuple(dist.get_process_group_ranks(dist.ProcessGroup.unbox(value)))
    name: Any = next(value for value in reversed(args) if isinstance(value, str))
    return tuple(dist.get_process_group_ranks(dist.distributed_c10d._resolve_process_group(name)))


def _bytes(value: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _attention(query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    """Q Kᵀ and P V, all of it: a causal kernel skips half, which is not counted off."""
    batch, heads, positions, width = query.shape
    return 4 * batch * heads * positions * key.shape[2] * width


def _texts_at_once(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any) -> int:
    """Rows of texts (B · S, heads, d), as if each were one text: a step without values knows no
    better."""
    longest: int = rest[3]
    return 4 * query.numel() * longest


def _texts_at_once_backward(_: Tensor, *rest: Any, **__: Any) -> int:
    query, key, value, _, _, *others = rest
    return 2 * _texts_at_once(query, key, value, *others)


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, *__: Any, **___: Any) -> int:
    """Gradients of both products; that a kernel computes the scores again is not counted."""
    return 2 * _attention(query, key)


_ONE_BY_ONE, _AT_ONCE = zip(FORWARD, BACKWARD, strict=True)
_FLOPS: dict[Any, Callable[..., int]] = {
    **{packet: partial(flop_registry[packet]) for packet in (aten.mm, aten.addmm, aten.bmm)},
    **dict.fromkeys(
        chain(
            (aten._scaled_dot_product_flash_attention_for_cpu,),
            (aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_cudnn_attention),
            (aten._scaled_dot_product_efficient_attention, _ONE_BY_ONE[0]),
        ),
        _attention,
    ),
    **dict.fromkeys(
        chain(
            (aten._scaled_dot_product_flash_attention_for_cpu_backward,),
            (aten._scaled_dot_product_flash_attention_backward,),
            (aten._scaled_dot_product_cudnn_attention_backward,),
            (aten._scaled_dot_product_efficient_attention_backward, _ONE_BY_ONE[1]),
        ),
        _attention_backward,
    ),
    _AT_ONCE[0]: _texts_at_once,
    _AT_ONCE[1]: _texts_at_once_backward,
}
