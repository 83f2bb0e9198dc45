"""Runs a recipe with the steps of `stubs.py`, as the command line does with the real ones."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from teleflm.cleaning.clean import clean
from teleflm.cleaning.recipe import load_recipe
from teleflm.data.unpack import Progress
from tests.cleaning.stubs import KINDS


@contextmanager
def no_bar(_: int) -> Iterator[Progress]:
    yield lambda _: None


def run(recipe: str, *overrides: str, force: bool = False) -> Any:
    return clean(load_recipe(recipe, overrides), KINDS, recipe, no_bar, force=force)


if __name__ == "__main__":
    run(*sys.argv[1:])
