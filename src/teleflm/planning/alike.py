"""Passes of a pipeline's micro-batches that do as one before them: counted, and not done again.

What a dry run takes is a fixed time an operator, whatever the shapes. Of a stage's passes all but
the first, which gathers weights and makes gradients, are alike. So the second of each kind is
watched, and those behind it are counted as it: in the schedule's own order, between its own sends
and receives, beside what it keeps alive by then. So bytes are at each moment those of a step whose
every pass is done.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from teleflm.parallel.in_flight import InFlightStage
from teleflm.planning.counting import Counting, Work

Given = tuple[Tensor | None, ...]
"""What a pass hands on: the residual stream or the loss, or the gradients of what it read."""


class NotAlikeError(Exception):
    """A micro-batch left something behind that others share, so passes have to be done."""


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


@contextmanager
def counted_alike(counted: Counting) -> Iterator[None]:
    """Do the first two passes of each kind through each stage, and count the others.

    Raises:
        NotAlikeError: at the end, where what was counted is not what doing them all would count.
    """
    passes: dict[InFlightStage, dict[str, _Passes]] = defaultdict(lambda: defaultdict(_Passes))
    forward = InFlightStage.forward_maybe_with_nosync
    backward = InFlightStage.backward_maybe_with_nosync

    def forward_once(stage: InFlightStage, *args: Any, **kwargs: Any) -> Tensor | None:
        (output,) = passes[stage]["forward"].next(
            counted, lambda: (forward(stage, *args, **kwargs),)
        )
        return output

    def backward_once(stage: InFlightStage, kind: str, *args: Any, **kwargs: Any) -> Any:
        groups: Any = None

        def do() -> Given:
            nonlocal groups
            given, groups = backward(stage, kind, *args, **kwargs)
            # Of weights it gives the gradients as they stand, which nobody reads.
            return given if kind != "weight" else ()

        # A pass that is not done has no groups of weights, which only one that is done reads.
        return passes[stage][kind].next(counted, do), groups

    with (
        mock.patch.object(InFlightStage, forward.__name__, forward_once),
        mock.patch.object(InFlightStage, backward.__name__, backward_once),
    ):
        yield
    # All that a micro-batch leaves behind is freed by its own passes, or its bytes are counted at
    # another time than they live. In a growth's ramp without recomputation they are: a mask is a
    # real tensor, whose copy without values lives while any micro-batch keeps it.
    if any(sum(each.kept for each in kinds.values()) for kinds in passes.values()):
        raise NotAlikeError
