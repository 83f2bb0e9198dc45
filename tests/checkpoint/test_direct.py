"""Files past the cache: the same bytes whatever their length, and where there is no such access."""

import errno
import hashlib
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from teleflm.checkpoint import direct
from teleflm.checkpoint.direct import direct_pieces, direct_writer


@pytest.fixture(params=["direct", "through the cache"])
def access(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_PIECE", 8192)
    if request.param == "direct":
        return
    real = os.open

    def refusing(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct access here")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refusing)


@pytest.mark.usefixtures("access")
@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 16384, 50_001])
@pytest.mark.parametrize("cuts", [(), (1,), (4096, 8192), (10, 9000, 40_000)])
def test_what_is_written_is_read(tmp_path: Path, length: int, cuts: tuple[int, ...]) -> None:
    data = hashlib.shake_128(b"x").digest(length)
    path = tmp_path / "file"
    path.write_bytes(b"something longer that was there before" * 4000)
    places = [0, *(min(cut, length) for cut in cuts), length]
    with direct_writer(path) as file:
        for start, end in pairwise(places):
            file.write(memoryview(data)[start:end])
        digest = file.finish()
    assert path.read_bytes() == data
    assert (file.bytes, digest) == (length, hashlib.sha256(data).hexdigest())
    assert b"".join(bytes(piece) for piece in direct_pieces(path)) == data


def test_another_failure_is_not_taken_for_missing_direct_access(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), direct_writer(tmp_path / "none" / "file"):
        pass
