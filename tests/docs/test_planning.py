"""What docs/planning.md shows is what its commands print."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The parts of a command's output that are left out are an ellipsis.
SHOWN = re.findall(r"^```sh\n(teleflm .*)\n```\n\n((?:    .*\n|\n(?=    ))+)", PAGE, re.M)
PINNED_TORCH = (
    f"torch=={version('torch').split('+')[0]}\n" in (ROOT / "requirements.lock").read_text()
)
# Dry runs take ten seconds.
CASES = [
    pytest.param(*shown, marks=pytest.mark.slow if " dryrun " in shown[0] else [])
    for shown in SHOWN
]


def shows(page: list[str], printed: list[str]) -> bool:
    """To the letter with the PyTorch that the page was made with. Others send a message more or
    less in a step, so there every word is the same and every number within 1 %."""
    if PINNED_TORCH:
        return page == printed
    words, numbers = zip(
        *(_taken_apart("\n".join(lines)) for lines in (page, printed)), strict=True
    )
    return words[0] == words[1] and numbers[1] == pytest.approx(numbers[0], rel=0.01)


def _taken_apart(text: str) -> tuple[str, list[float]]:
    found = re.compile(r"\d[\d,.]*(?:e[+-]?\d+)?")
    numbers = [float(number.strip(",.").replace(",", "")) for number in found.findall(text)]
    return re.sub(r"\s+", " ", found.sub("0", text)), numbers


@pytest.mark.parametrize(("command", "shown"), CASES)
def test_the_page_shows_what_the_command_prints(
    teleflm: Command, monkeypatch: pytest.MonkeyPatch, command: str, shown: str
) -> None:
    monkeypatch.chdir(ROOT)
    done = teleflm(*shlex.split(command)[1:])
    assert done.code == 0, done.err
    printed = [line.rstrip() for line in done.out.splitlines()]
    parts = re.split(r"^    …\n", shown.rstrip("\n") + "\n", flags=re.M)
    for number, part in enumerate(parts):
        lines = [line.removeprefix("    ") for line in part.splitlines()]
        starts = range(len(printed) - len(lines) + 1)
        at = [start for start in starts if shows(lines, printed[start : start + len(lines)])]
        assert at, "\n".join(lines)
        printed = printed[at[0] + len(lines) :]
        assert number or at[0] == 0, "the beginning is shown"
    assert not parts[-1] or not printed, "the end is shown"


def test_every_command_is_followed_by_what_it_prints() -> None:
    commands = re.findall(r"^```sh\n(teleflm .*)\n```$", PAGE, re.M)
    # But for one whose figures are of the machine that it runs on.
    assert [command for command, _ in SHOWN] == [c for c in commands if "--calibrate" not in c]
    assert len(SHOWN) == 7


def test_the_readme_shows_the_beginning_of_it() -> None:
    shown = next(shown for command, shown in SHOWN if " dryrun " in command)
    assert shown[: shown.index("    collectives")] in README


def test_what_the_text_says_of_two_months() -> None:
    """Model FLOPs of the series over the peak of 896 A800 in 61 days."""
    (flops,) = re.findall(r"^    the series +\S+ +(\S+)", PAGE, re.M)[:1]
    share = float(flops) / (896 * 312e12 * 61 * 86_400)
    (said,) = re.findall(r"In 61 days .* are (\d+) % of the peak", PAGE)
    assert int(said) == round(100 * share)
