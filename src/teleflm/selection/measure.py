"""What a model makes of samples: where they lie in its last layer, and how well it knows them.

Each sample goes through the model by itself, in one thread: its figures are then a function of the
weights and its own tokens, whatever is measured beside it and on however many threads. Several are
measured at once, each by a thread of its own.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from teleflm.errors import CheckpointError
from teleflm.model.loss import token_scores
from teleflm.model.network import TeleFLM
from teleflm.selection.tokens import Ids, Written

FloatArray = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]


class Measured(NamedTuple):
    """A sample as the model sees it, of which m counted tokens are within its context.

    The three vectors are means of final normed hidden states, float32 (hidden,): those of all
    tokens, of the question's (what is not counted) and of the reply's. Of a text, which has no
    question, all are the same.

    Attributes:
        tokens: the counted ones, (m,).
        nats: −log p of each, given all before it, (m,).
        bytes: of text that the m tokens stand for.
    """

    whole: Vector
    question: Vector
    reply: Vector
    tokens: Ids
    nats: FloatArray
    bytes: float


def measure(
    network: TeleFLM,
    start: Sequence[int],
    samples: Sequence[Written],
    device: torch.device,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Measured]:
    """Measure samples, which are cut at the end of the model's context.

    Args:
        network: in float32; it is moved to `device`.
        start: tokens that each stands behind.
        progress: takes how many are done.

    Raises:
        CheckpointError: the model computes no number.
    """
    network = network.to(device).eval()
    mine = threading.local()

    def one(sample: Written) -> Measured:
        if not hasattr(mine, "network"):
            # The weights are shared; what a network keeps of its last call is not.
            shared = {id(weight): weight for weight in network.parameters()}
            mine.network = copy.deepcopy(network, shared)
        return _measured(mine.network, start, sample, device)

    found = []
    with _one_thread_each() as threads:
        workers = threads if device.type == "cpu" else 1
        pool = ThreadPoolExecutor(workers)
        try:
            for measured in pool.map(one, samples):
                found.append(measured)
                progress(1)
        finally:
            # After an error or Ctrl-C nobody waits for the rest.
            pool.shutdown(cancel_futures=True)
    return found


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Inside, an operation takes one thread. Yields how many it took before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _measured(
    network: TeleFLM, start: Sequence[int], sample: Written, device: torch.device
) -> Measured:
    room = network.config.max_position_embeddings - len(start)
    ids = torch.from_numpy(sample.ids[:room]).to(device)
    counted = torch.from_numpy(sample.counted[:room]).to(device)
    row = torch.cat([ids.new_tensor(start), ids])
    hidden = network.hidden(row[None])[0]
    behind = hidden[len(start) :]
    whole, question, reply = (_mean(behind, which) for which in (counted | True, ~counted, counted))
    target = ids[counted]
    nats = hidden.new_zeros(0)
    if len(target):
        # Position t predicts the token behind it.
        before = hidden[len(start) - 1 : -1][counted]
        nats = token_scores(before, network.lm_head.weight, network.logit_multiplier, target).nats
    if not (whole.isfinite().all() and nats.isfinite().all()):
        raise CheckpointError(
            "the model computes values that are not finite, so it can judge nothing; take an "
            "earlier checkpoint"
        )
    return Measured(
        whole.cpu().numpy(),
        question.cpu().numpy(),
        reply.cpu().numpy(),
        target.cpu().numpy(),
        nats.double().cpu().numpy(),
        sample.bytes * len(target) / max(int(sample.counted.sum()), 1),
    )


def _mean(hidden: Tensor, which: Tensor) -> Tensor:
    """The mean of the states (n, hidden) that `which` says; of all where it says none."""
    some = hidden[which] if which.any() else hidden
    return some.double().mean(0).float()
