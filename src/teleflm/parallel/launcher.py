"""What started this process: torchrun, or nobody that matters.

Free of torch, so that it is imported at once: a launcher that dies while torch loads is missed too.
"""

import os
import threading
import time

_LAUNCHER = os.getppid()


def rank() -> int:
    """This process's number among all that torchrun started, 0 without it."""
    return int(os.environ.get("RANK", "0"))


def leave_with_launcher() -> None:
    """From now on end this process, whatever it does, when its launcher is gone.

    torchrun, killed, leaves its workers behind, and they would train on beside those of the next.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.getppid() == _LAUNCHER:
        time.sleep(0.2)
    os._exit(1)
