"""Errors that a user can act on.

Each message says what is wrong, where, and the way out. The command line prints it as `error: …`
without a traceback and leaves with the error's `exit_code`: 2 where the input is at fault, 1 where
a check failed or the machine did.
"""

from typing import Any


class TeleflmError(Exception):
    """Base of every error that is meant for the user's eyes."""

    exit_code = 2

    def __reduce__(self) -> tuple[Any, ...]:
        # From another process it comes as it is, whatever its `__init__` takes.
        return _as_it_was, (type(self), self.args), vars(self)


def _as_it_was(kind: type[TeleflmError], args: tuple[Any, ...]) -> TeleflmError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(TeleflmError):
    """A run description, preset or override that makes no sense."""


class DataError(TeleflmError):
    """A corpus, tokenizer or token store that cannot be used."""


class CheckpointError(TeleflmError):
    """A checkpoint or model folder that is missing, damaged or of another kind."""


class GrowthError(TeleflmError):
    """A growth that its operator cannot do."""


class MissingExtraError(TeleflmError):
    """An optional library is not installed; the message names the command that installs it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed; install it with: pip install 'teleflm[{extra}]'"
        )


class UnfitLibraryError(TeleflmError):
    """A library that everything needs is too old or missing; the message names the command."""

    def __init__(self, fault: str, requirement: str) -> None:
        super().__init__(f"{fault}; install it with: pip install '{requirement}'")


class RunLockedError(TeleflmError):
    """Another process is at work in the same run folder."""


class CheckFailedError(TeleflmError):
    """A check ran to its end and the answer is no."""

    exit_code = 1


class MachineError(TeleflmError):
    """The machine failed us: a full disk, a lost device."""

    exit_code = 1


class DivergedError(MachineError):
    """A run whose steps went wrong one after another."""


class StoppedError(TeleflmError):
    """A signal asked the work to stop, and what was done so far is saved."""

    def __init__(self, signal_number: int, saved: str) -> None:
        super().__init__(f"stopped by signal {signal_number}; {saved}")
        self.exit_code = 128 + signal_number
