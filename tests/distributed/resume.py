"""What a rank does in a case of the resume suite: it trains, as `teleflm train` would."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from teleflm.parallel.ranks import Ranks
from teleflm.training import precision
from teleflm.training.loop import train
from teleflm.training.precision import settled
from teleflm.training.start import resolve_config
from tests.tiny import other_text, poison


def train_up_to(data: dict[str, Any], steps: int, parallel: dict[str, Any]) -> None:
    """Train a run to its step `steps` on the layout that `parallel` says."""
    training = {**data["training"], "steps": steps}
    train(resolve_config({**data, "training": training, "parallel": parallel}, "the test"))


def settled_where_ranks_differ(data: dict[str, Any]) -> str:
    """What a run computes in by a rank's lights; the first is quick in fp32, the others in bf16."""
    config = resolve_config(data, "the test")
    with pytest.MonkeyPatch.context() as patch:
        fast = "fp32" if dist.get_rank() == 0 else "bf16"
        patch.setattr(precision, "fast_precision", lambda device: fast)
        return settled(config, Ranks(), torch.device("cpu")).training.dtype


def train_through_faults(data: dict[str, Any], parallel: dict[str, Any], bad_rank: int) -> None:
    """Train with an infinite gradient on one rank at step 2, and two batches that are noise."""
    with pytest.MonkeyPatch.context() as patch:
        other_text(patch, {11, 13})
        if not dist.is_initialized() or dist.get_rank() == bad_rank:
            poison(patch, {2})
        train(resolve_config({**data, "parallel": parallel}, "the test"))
