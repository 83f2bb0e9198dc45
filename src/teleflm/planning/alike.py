"""Passes of a pipeline's micro-batches that do as one before them: counted, and not done again.

What a dry run takes is a fixed time an operator, whatever the shapes. Of a stage's passes all but
the first, which gathers weights and makes gradients, are alike. So the second of each kind is
watched, and those behind it are counted as it: in the schedule's own order, between its own sends
and receives, beside what it keeps alive by then. So bytes are at each moment those of a step whose
every pass is done.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from teleflm.parallel.in_flight import InFlightStage
from teleflm.parallel.tensor import local_part
from teleflm.planning.counting import Counting, Work

Given = tuple[Tensor | None, ...]
"""What a pass hands on: the residual stream or the loss, or the gradients of what it read."""


class _Passes:
    """Those of one kind through one stage.

    Attributes:
        kept: bytes that each leaves beside what it gives; below 0 where it frees them.
    """

    def __init__(self) -> None:
        self.kept = 0
        self._is_first = True
        self._work: Work | None = None
        self._like: Given = ()

    def next(self, counted: Counting, do: Callable[[], Given]) -> Given:
        """What the next one gives; `do` does it."""
        if self._work is not None:
            return counted.repeat(self._work, lambda: _like(self._like, "cpu"))
        if self._is_first:
            self._is_first = False
            return do()
        given, self._work = counted.watch(do)
        self._like = _like(given, "meta")
        self.kept = self._work.left - sum(each.nbytes for each in given if each is not None)
        return given


def _like(given: Given, device: str) -> Given:
    """New tensors of these shapes; on the meta device they have no memory."""
    return tuple(
        each
        if each is None
        else torch.empty_like(each, device=device, requires_grad=each.requires_grad)
        for each in given
    )


def _fakes_in_use(counted: Counting, stage: InFlightStage) -> list[Tensor]:
    """Of a stage's growth masks, which have values, those whose fakes a micro-batch in flight keeps
    for its way back: in a step whose every pass is done they live until none is in flight."""
    peak, found = counted.peak, []
    for buffer in stage.submod.buffers():
        live = counted.live
        fake = local_part(buffer).detach()
        if counted.live == live:
            found.append(fake)
    counted.peak = peak
    return found


@contextmanager
def counted_alike(counted: Counting) -> Iterator[None]:
    """Do the first two passes of each kind through each stage, and count the others."""
    passes: dict[InFlightStage, dict[str, _Passes]] = defaultdict(lambda: defaultdict(_Passes))
    in_flight: Counter[InFlightStage] = Counter()
    masks: dict[InFlightStage, list[Tensor]] = {}
    forward = InFlightStage.forward_maybe_with_nosync
    backward = InFlightStage.backward_maybe_with_nosync

    def forward_once(stage: InFlightStage, *args: Any, **kwargs: Any) -> Tensor | None:
        (output,) = passes[stage]["forward"].next(
            counted, lambda: (forward(stage, *args, **kwargs),)
        )
        in_flight[stage] += 1
        if stage not in masks:
            masks[stage] = _fakes_in_use(counted, stage)
        return output

    def backward_once(stage: InFlightStage, kind: str, *args: Any, **kwargs: Any) -> Any:
        groups: Any = None

        def do() -> Given:
            nonlocal groups
            given, groups = backward(stage, kind, *args, **kwargs)
            # Of weights it gives the gradients as they stand, which nobody reads.
            return given if kind != "weight" else ()

        given = passes[stage][kind].next(counted, do)
        in_flight[stage] -= kind != "weight"
        if not in_flight[stage]:
            masks[stage] = []
        # A pass that is not done has no groups of weights, which only one that is done reads.
        return given, groups

    with (
        mock.patch.object(InFlightStage, forward.__name__, forward_once),
        mock.patch.object(InFlightStage, backward.__name__, backward_once),
    ):
        yield
    for kinds in passes.values():
        # What lived on behind a micro-batch would be freed at another time than its passes are.
        assert sum(each.kept for each in kinds.values()) == 0, "a micro-batch left something behind"
