"""Whether the installed PyTorch will do, found out without loading it."""

import re
from importlib.metadata import PackageNotFoundError, version

from teleflm.errors import UnfitLibraryError

OLDEST = (2, 11)
"""The oldest release that the tests pass on, as in pyproject.toml; no newer one is refused."""


def check_torch() -> None:
    """Do nothing where PyTorch is new enough.

    Raises:
        UnfitLibraryError: it is older, or not there.
    """
    needed = "torch>=" + ".".join(map(str, OLDEST))
    try:
        found = version("torch")
    except PackageNotFoundError:
        raise UnfitLibraryError("torch is not installed", needed) from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
        raise UnfitLibraryError(f"torch {found} is too old for teleflm", needed)
