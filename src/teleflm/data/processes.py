"""Worker processes that do not outlive the one that started them."""

import multiprocessing
import os
import threading
from multiprocessing import connection


def follow_parent() -> None:
    """Have this process end at once when its parent does, also where that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
