"""Where things lie in the folder of a recipe's result."""

from collections.abc import Callable
from pathlib import Path

# Set in each process that does tasks, by the executor that started it.
_progress: list[Callable[[int], None]] = []


def set_progress(progress: Callable[[int], None]) -> None:
    """Have this process report bytes to `progress`."""
    _progress[:] = [progress]


class Folders:
    """The result, and beside it, hidden until it is whole, the work.

    `text/`, `dropped/`, `clean.json` and `report.html` are the result; `.work/` is what a stopped
    run goes on from.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out).absolute()
        self.work = self.out / ".work"
        self.lock = self.work / ".lock"
        self.identity = self.work / "recipe.json"
        self.clean = self.out / "clean.json"
        self.report = self.out / "report.html"
        self.text = self.out / "text"
        self.new_text = self.work / "text"
        self.all_dropped = self.out / "dropped"
        self.tallies = self.work / "tallies"

    def documents(self, phase: int) -> Path:
        """What a phase writes for the next."""
        return self.work / f"documents-{phase:02d}"

    def logs(self, phase: int) -> Path:
        """Of datatrove, with its marks of the tasks that are done."""
        return self.work / f"phase-{phase:02d}"

    def step(self, name: str) -> Path:
        """A corpus step's own."""
        return self.work / "steps" / name

    def dropped(self, name: str) -> Path:
        """What a step dropped."""
        return self.all_dropped / name

    def tally(self, name: str, shard: int) -> Path:
        """What a step counted in a shard."""
        return self.tallies / name / f"{shard:05d}.json"

    def report_progress(self, count: int) -> None:
        """So many bytes of the sources, or of what became of them, have been read."""
        for progress in _progress:
            progress(count)
