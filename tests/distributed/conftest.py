"""The processes that the cases of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.world import World


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One test worker takes them all, so that two do not each start their ranks."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("distributed"))


@pytest.fixture(scope="session")
def eight() -> Iterator[World]:
    """Eight ranks."""
    world = World(8)
    yield world
    world.close()


@pytest.fixture(scope="session")
def four() -> Iterator[World]:
    """Four ranks."""
    world = World(4)
    yield world
    world.close()
