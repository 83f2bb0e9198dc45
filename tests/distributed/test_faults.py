"""The fault drill in its short form: a kill of each kind."""

from itertools import pairwise
from pathlib import Path

import pytest

from teleflm.data.store import TokenStore
from tests.drill.faults import KINDS, Drill, plan


def test_a_plan_has_every_kind() -> None:
    planned = plan(12, seed=0)
    assert {(kill.target, kill.moment) for kill in planned} == set(KINDS)
    assert {kill.target for kill in planned[:4]} == {target for target, _ in KINDS}
    assert all(before.step < after.step for before, after in pairwise(planned))


@pytest.mark.slow
def test_a_run_that_is_killed_is_the_undisturbed_run(store: TokenStore, tmp_path: Path) -> None:
    drill = Drill(store.path, tmp_path, plan(4, seed=20))
    assert len(drill.go()) == 4
    assert drill.found_damaged == 1
