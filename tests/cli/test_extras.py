"""A library of an extra that is not there is named; a fault of ours is not."""

from importlib import import_module

import pytest

from teleflm.cli.extras import needing
from teleflm.errors import MissingExtraError


def test_a_missing_library_is_named_with_its_extra() -> None:
    told = r"no_such_library is not .*teleflm\[sweep\]"
    with pytest.raises(MissingExtraError, match=told), needing("sweep"):
        import_module("no_such_library.part")


def test_a_module_of_ours_is_not_called_a_library() -> None:
    with pytest.raises(ModuleNotFoundError), needing("sweep"):
        import_module("teleflm.no_such_module")
