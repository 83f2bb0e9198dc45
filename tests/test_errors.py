"""Errors come from another process as they were raised."""

import inspect
import pickle

import pytest

from teleflm import errors
from teleflm.errors import MissingExtraError, StoppedError, TeleflmError, UnfitLibraryError

RAISED = [
    MissingExtraError("pyarrow", "data"),
    UnfitLibraryError("torch is too old", "torch>=2.11"),
    StoppedError(15, "saved at step 3"),
    *(
        kind("what is wrong")
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, TeleflmError)
        and kind not in (MissingExtraError, UnfitLibraryError, StoppedError)
    ),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_between_processes(error: TeleflmError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code
