"""What a rank does in a case of the resume suite: it trains, as `teleflm train` would."""

from typing import Any

from teleflm.training.loop import train
from teleflm.training.start import resolve_config


def train_up_to(data: dict[str, Any], steps: int, parallel: dict[str, Any]) -> None:
    """Train a run to its step `steps` on the layout that `parallel` says."""
    training = {**data["training"], "steps": steps}
    train(resolve_config({**data, "training": training, "parallel": parallel}, "the test"))
