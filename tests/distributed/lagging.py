"""What a rank does in a case of the suite on slow ranks."""

import io
import time
from contextlib import redirect_stderr
from typing import Any
from unittest.mock import patch

import torch.distributed as dist

from teleflm.config.run import resolve_run
from teleflm.data.loader import Loader
from teleflm.data.windows import Rows
from teleflm.training.hooks.lagging import Lagging
from teleflm.training.loop import train

# Much longer than what four ranks on two busy cores differ by in a step.
SLEEP = 1.5


def train_slowly(data: dict[str, Any], parallel: dict[str, Any], slow: int) -> str:
    """Train a run while the rank `slow` oversleeps every batch; this rank's standard error."""
    batch = Loader.batch

    def late(self: Loader, *arguments: Any) -> Rows:
        time.sleep(SLEEP if dist.get_rank() == slow else 0.0)
        return batch(self, *arguments)

    said = io.StringIO()
    with patch.object(Loader, "batch", late), redirect_stderr(said):
        train(resolve_run({**data, "parallel": parallel}, "the test"), [Lagging(seconds=1.0)])
    return said.getvalue()
