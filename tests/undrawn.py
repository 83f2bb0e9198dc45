"""Reports whose charts are laid out and not drawn: drawing takes longer than a tiny run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, matplotlib is told all that is in a chart and writes an empty one."""

    def savefig(self: object, target: Any, **_: Any) -> None:
        if isinstance(target, Path):
            target.touch()
        else:
            target.write('<svg viewBox="0 0 1 1"></svg>')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", savefig)
        yield
