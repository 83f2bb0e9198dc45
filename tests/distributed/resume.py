"""What a rank does in a case of the resume suite: it trains, as `teleflm train` would."""

from typing import Any

import pytest
import torch.distributed as dist

from teleflm.training.loop import train
from teleflm.training.start import resolve_config
from tests.tiny import other_text, poison


def train_up_to(data: dict[str, Any], steps: int, parallel: dict[str, Any]) -> None:
    """Train a run to its step `steps` on the layout that `parallel` says."""
    training = {**data["training"], "steps": steps}
    train(resolve_config({**data, "training": training, "parallel": parallel}, "the test"))


def train_through_faults(data: dict[str, Any], parallel: dict[str, Any], bad_rank: int) -> None:
    """Train with an infinite gradient on one rank at step 2, and two batches that are noise."""
    with pytest.MonkeyPatch.context() as patch:
        other_text(patch, {11, 13})
        if not dist.is_initialized() or dist.get_rank() == bad_rank:
            poison(patch, {2})
        train(resolve_config({**data, "parallel": parallel}, "the test"))
