"""What a hook is."""

from teleflm.training.run import Run, StepRecord


class Hook:
    """One concern beside the step. The loop calls these in the order of its list of hooks.

    The first rank has them all, the others those with `on_every_rank`, whose work all share.
    """

    on_every_rank = False

    def on_start(self, run: Run) -> None:
        """Before the first step of this process, fresh or resumed."""

    def on_step(self, run: Run, record: StepRecord) -> None:
        """After each update; `run.step` counts it already."""

    def on_end(self, run: Run) -> None:
        """After the last step, or when a signal stops the run."""

    def close(self) -> None:
        """Whatever happened, even before `on_start`: release files and the terminal."""
