"""Where a series keeps what."""

from dataclasses import dataclass
from pathlib import Path

from teleflm.checkpoint.load import find_checkpoint


@dataclass(frozen=True)
class SeriesLayout:
    """Paths of a series below `root`; stages are counted from 0."""

    root: Path
    stages: list[str]

    def run_dir(self, index: int) -> Path:
        """The run folder of a stage."""
        return self.root / "stages" / self.stages[index]

    def last(self, index: int) -> Path:
        """A stage's newest checkpoint (CheckpointError where there is none)."""
        return find_checkpoint(self.run_dir(index))

    def grown(self, index: int) -> Path:
        """The checkpoint that a stage starts from, as the growth made it."""
        return self.root / "grown" / self.stages[index]

    def export(self, kind: str) -> Path:
        """An export of the last stage's model."""
        return self.root / "export" / kind
