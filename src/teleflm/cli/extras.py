"""Libraries that come with an extra, as the verbs import them."""

from collections.abc import Iterator
from contextlib import contextmanager

from teleflm.errors import MissingExtraError


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """For imports of which some need libraries of an extra.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library == "teleflm":
            raise
        raise MissingExtraError(library, extra) from error
