"""The processes that the cases of this folder share."""

from collections.abc import Iterator

import pytest

from tests.distributed.world import World


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
