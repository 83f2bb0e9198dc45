"""A serving engine on the loopback, as a user starts it, for as long as a test asks it."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 180.0


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(command: Sequence[str | Path], port: int, log: Path) -> Iterator[str]:
    """The address of the OpenAI API of the server that `command` starts at `port`."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            address = f"http://127.0.0.1:{port}/v1"
            _wait(server, address, log)
            yield address
        finally:
            server.kill()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/models").close()
            return
        except urllib.error.URLError:
            time.sleep(0.3)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-3000:]}")
