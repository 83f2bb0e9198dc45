"""A run says at its start how it is laid out, and in its course which rank is slow."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from teleflm.data.store import TokenStore
from tests.distributed.lagging import SLEEP, train_slowly
from tests.distributed.world import World
from tests.tiny import run_fields

SLOW = 2


# By tensor parallelism the others wait inside of a block, by a pipeline for a stage.
@pytest.mark.parametrize("parallel", [{"tp": 2, "dp": 2}, {"pp": 2, "dp": 2}], ids=str)
def test_the_rank_that_sleeps_is_named(
    four: World, store: TokenStore, tmp_path: Path, parallel: dict[str, Any]
) -> None:
    data = run_fields(store.path, tmp_path / "run", training={"steps": 5})
    first, *others = four.run(train_slowly, data, parallel, SLOW)
    assert "is slow" not in "".join(others)
    layout = "tp 2 · pp 1 · dp 2" if "tp" in parallel else "tp 1 · pp 2 · dp 2"
    assert f"run: {layout}: 4 ranks; parameters " in first
    pattern = rf"rank (\d) \(host {re.escape(socket.gethostname())}\) is slow: (\S+) s of own work"
    found = re.findall(pattern, first)
    assert {int(rank) for rank, _ in found} == {SLOW}
    assert all(float(seconds) > 0.8 * SLEEP for _, seconds in found)
