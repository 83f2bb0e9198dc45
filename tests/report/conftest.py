"""A finished made-up series, written once."""

from pathlib import Path

import pytest

from tests.report.made_up import write_series


@pytest.fixture(scope="module")
def series_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series folder with its runs; tests that change it copy it first."""
    root = tmp_path_factory.mktemp("made-up") / "series"
    write_series(root)
    return root
