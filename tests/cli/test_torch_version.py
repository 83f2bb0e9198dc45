"""A PyTorch that will not do is named before anything is done, and without loading it."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from teleflm.cli import torch_version
from tests.conftest import Command

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def install(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    """As if this one were installed."""
    monkeypatch.setattr(torch_version, "version", lambda name: {"torch": release}[name])


@pytest.mark.parametrize("release", ["2.11.0", "2.11.0a0+git1a2b3c", "2.13.0+cpu", "2.99.1", "3.0"])
def test_new_enough(teleflm: Command, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    install(monkeypatch, release)
    assert teleflm("inspect", "nano-52b").code == 0


@pytest.mark.parametrize("release", ["2.10.2", "2.9.1+cu126", "1.13.1"])
def test_too_old(teleflm: Command, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    install(monkeypatch, release)
    code, out, err = teleflm("inspect", "nano-52b")
    assert (code, out) == (2, "")
    fault = f"torch {release} is too old for teleflm"
    assert err == f"error: {fault}; install it with: pip install 'torch>=2.11'\n"
    assert teleflm("--version").code == 0


def test_not_there(teleflm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(torch_version, "version", none)
    code, _, err = teleflm("inspect", "nano-52b")
    assert code == 2
    assert "torch is not installed; install it with: pip install 'torch>=2.11'" in err


def test_the_range_is_the_project_s() -> None:
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"torch>={'.'.join(map(str, torch_version.OLDEST))}" in wanted


def test_looking_does_not_load_it() -> None:
    code = (
        "import sys; from teleflm.cli.torch_version import check_torch; check_torch(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
