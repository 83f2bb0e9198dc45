"""What started this process: torchrun, or nobody that matters.

Free of torch, so that it is imported at once: a launcher that dies while torch loads is missed too.
"""

import os
import threading
import time

from teleflm.errors import ConfigError

_LAUNCHER = os.getppid()
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def rank() -> int:
    """This process's number among all that torchrun started, 0 without it."""
    return _number("RANK", 0)


def count() -> int:
    """How many processes torchrun started, 1 without it."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """This process's number among those on its machine, 0 without torchrun."""
    return _number("LOCAL_RANK", 0)


def local_count() -> int:
    """How many processes torchrun started on this machine, 1 without it."""
    return _number("LOCAL_WORLD_SIZE", 1)


def check_launch() -> None:
    """Refuse an environment with a part of what torchrun sets, or with something else there: a
    process that was to be one of many would do their work by itself.

    Raises:
        ConfigError: naming the variable.
    """
    fault = _fault()
    if fault is None and count() > 1:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        fault = f"it has WORLD_SIZE = {count()} and no {missing[0]}" if missing else None
    if fault is not None:
        raise ConfigError(
            f"the environment is not as torchrun makes it: {fault}; unset "
            f"{', '.join(name for name in _NUMBERS if name in os.environ)} to start one process, "
            "or start it with torchrun"
        )


def _number(name: str, alone: int) -> int:
    """A variable of torchrun's; `alone` where this process is one by itself, or cannot know."""
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ and _fault() is None
    return int(os.environ.get(name, alone)) if launched else alone


def _fault() -> str | None:
    """What is wrong with the variables; None where torchrun set them, or nobody did."""
    given = {name: os.environ[name] for name in _NUMBERS if name in os.environ}
    for name, text in given.items():
        if not text.isdecimal():
            return f"{name} is {text!r}, not a whole number"
    rank, count = given.get("RANK"), given.get("WORLD_SIZE")
    if int(rank or 0) == 0 and int(count or 1) == 1:
        return None
    if rank is None or count is None:
        there, missing = ("RANK", "WORLD_SIZE") if count is None else ("WORLD_SIZE", "RANK")
        return f"it has {there} = {given[there]} and no {missing}"
    if int(rank) >= int(count):
        return f"it has RANK = {rank} and WORLD_SIZE = {count}"
    return None


def leave_with_launcher() -> None:
    """From now on end this process, whatever it does, when its launcher is gone.

    torchrun, killed, leaves its workers behind, and they would train on beside those of the next.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.getppid() == _LAUNCHER:
        time.sleep(0.2)
    os._exit(1)
