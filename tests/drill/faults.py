"""The fault drill: a run of four ranks that is killed again and again is the undisturbed run.

    python -m tests.drill.faults --kills 50 --seed 0

Trains a tiny model on pp 2 · dp 2 by torchrun and gloo, undisturbed once. Then the same run is
killed at random moments: as it starts, in a step, in a save; one rank, torchrun only, all of them,
or by SIGTERM. Now and then a byte of its newest checkpoint is flipped before it goes on. At the end
the tensors, the metrics and the lineage are those of the undisturbed run bit for bit, or it fails.
"""

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple, get_args

from teleflm.checkpoint.load import (
    checkpoint_step,
    checkpoints,
    find_checkpoint,
    load_checkpoint,
)
from teleflm.checkpoint.manifest import problems
from teleflm.data.store import prepare
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.training.start import newest_whole_checkpoint
from tests.conftest import CODE
from tests.drill.job import RANKS, Job, alive, kill, said_in, wait_for
from tests.tiny import assert_same_run, run_fields, write_run

Target = Literal["rank", "agent", "all", "term"]
Moment = Literal["step", "save", "start"]
KINDS: list[tuple[Target, Moment]] = list(itertools.product(get_args(Target), get_args(Moment)))
# Steps between two kills, so that the run does not end before the last.
SPACING = 10
# Ranks whose peer or launcher is gone leave by themselves; torchrun's SIGKILL comes after 30 s.
LEAVE_SECONDS = 20.0


class Kill(NamedTuple):
    """What is killed and when; `damages`: then a byte of the newest checkpoint is flipped."""

    target: Target
    moment: Moment
    step: int
    delay: float
    rank: int
    damages: bool


class Seen(NamedTuple):
    """Seconds until the last rank was gone, and until new ones were in the loop."""

    kill: Kill
    left: float
    back: float | None
    damaged: bool


def plan(kills: int, seed: int) -> list[Kill]:
    """So many kills: each four have every target, each twelve every target at every moment."""
    generator = random.Random(seed)
    targets, moments = get_args(Target), get_args(Moment)
    planned: list[Kill] = []
    for block in itertools.count():
        for index, target in generator.sample(list(enumerate(targets)), len(targets)):
            if len(planned) == kills:
                return planned
            moment = moments[(index + block) % len(moments)]
            planned.append(
                Kill(
                    target,
                    moment,
                    step=(len(planned) + 1) * SPACING + generator.randrange(SPACING),
                    delay=generator.uniform(
                        0.0, {"start": 12.0, "step": 0.2, "save": 0.01}[moment]
                    ),
                    rank=generator.randrange(RANKS),
                    # Only where nobody is at work in between.
                    damages=target in ("all", "term") and generator.random() < 0.5,
                )
            )
    raise AssertionError


class Drill:
    """The run that is killed, and its undisturbed twin.

    Args:
        store: a token store.
        folder: an empty one, for run folders and logs.
        kills: in this order.
    """

    def __init__(self, store: Path, folder: Path, kills: list[Kill]) -> None:
        self.kills, self.folder = kills, folder
        self.run, self.right = folder / "run", folder / "undisturbed"
        steps = SPACING * (len(kills) + 4)
        for run in (self.run, self.right):
            fields = run_fields(
                store,
                run,
                training={"steps": steps, "micro_batch": 1},
                parallel={"pp": 2},
                checkpoint={"every": 4, "keep": 3},
                evaluation={"every": 10_000, "prompts": []},
            )
            write_run(run.with_suffix(".yaml"), fields)
        self.launches = 0
        self.damaged: list[Path] = []
        self.open_damage: Path | None = None
        self.found_damaged = 0

    def go(self) -> list[Seen]:
        """Both runs, and the comparison.

        Raises:
            AssertionError: they differ, or something on the way was not as it has to be.
        """
        undisturbed = Job(self.right.with_suffix(".yaml"), self.folder / "undisturbed.log")
        wait_for("the undisturbed run ends", undisturbed.ended, 600.0)
        assert undisturbed.agent.returncode == 0, undisturbed.said()
        self.job = self._launch()
        seen: list[Seen] = []
        try:
            for number, planned in enumerate(self.kills):
                following = self.kills[number + 1 : number + 2]
                seen.append(self._survive(planned, following))
                print(f"{number + 1:3}/{len(self.kills)}  {_told(seen[-1])}", flush=True)
            wait_for("the run ends", self.job.ended)
            assert self.job.agent.returncode == 0, self.job.said()[-3000:]
        finally:
            self.job.kill_all()
        self._check_words()
        assert_same_run(self.run, self.right)
        one, other = (load_checkpoint(find_checkpoint(run))[1] for run in (self.run, self.right))
        assert (one.adam_steps, one.lineage) == (other.adam_steps, other.lineage)
        return seen

    def _launch(self) -> Job:
        self.launches += 1
        log = self.folder / f"launch-{self.launches:03}.log"
        background = "true" if self.launches % 2 else "false"
        yaml = self.run.with_suffix(".yaml")
        return Job(yaml, log, f"checkpoint.asynchronous={background}")

    def _survive(self, planned: Kill, following: Sequence[Kill]) -> Seen:
        """Kill, and wait until the run goes on, unless it is killed again before."""
        ranks = self._await(planned)
        before, killed = self._metrics(), time.monotonic()
        if planned.target in ("rank", "agent"):
            # The one launcher has its ranks back by itself, the other leaves them behind.
            kill(
                ranks[planned.rank] if planned.target == "rank" else self.job.agent.pid,
                signal.SIGKILL,
            )
            if planned.target == "agent":
                self.job.agent.wait()
                self.job = self._launch()
        elif planned.target == "term":
            self._terminate(ranks, planned)
        else:
            self.job.kill_all()
        wait_for(f"ranks leave after {planned}", lambda: not any(map(alive, ranks)), LEAVE_SECONDS)
        left, damaged = time.monotonic() - killed, False
        if planned.target in ("all", "term"):
            self.job.agent.wait()
            self._check_checkpoints()
            if planned.damages:
                damaged = self._damage()
            self.job = self._launch()
        back = None
        if not following or following[0].moment != "start":
            wait_for(f"the run goes on after {planned}", lambda: self._metrics() != before)
            back = time.monotonic() - killed
            self._check_passed_over()
        return Seen(planned, left, back, damaged)

    def _await(self, planned: Kill) -> list[int]:
        """Wait for the moment; the processes of the ranks."""
        if planned.moment != "start":
            wait_for(f"a step for {planned}", lambda: self._step() >= planned.step)
        if planned.moment == "save":
            folder = self.run / "checkpoints"
            wait_for(f"a save for {planned}", lambda: any(folder.glob(".step-*.partial")))
        wait_for(f"all ranks for {planned}", lambda: len(self.job.ranks()) == RANKS)
        time.sleep(planned.delay)
        ranks = self.job.ranks()
        assert len(ranks) == RANKS and not self.job.ended(), self.job.said()[-3000:]
        return ranks

    def _terminate(self, ranks: list[int], planned: Kill) -> None:
        """To torchrun as a user does, or to all, as Slurm does while torchrun passes its own on."""
        everyone = [self.job.agent.pid, *(ranks if planned.rank % 2 else [])]
        for pid in everyone:
            kill(pid, signal.SIGTERM)
        wait_for(f"torchrun ends after {planned}", self.job.ended, LEAVE_SECONDS)
        if planned.moment != "start":
            # A newer one that was damaged may still be there.
            found = newest_whole_checkpoint(self.run)
            step = found[0].step if found else None
            said = self.job.said()
            assert f"stopped by signal 15; saved at step {step} of" in said, said[-3000:]

    def _metrics(self) -> int | None:
        """The file of metrics, which a run that goes on writes anew."""
        path = self.run / "metrics.jsonl"
        return path.stat().st_ino if path.exists() else None

    def _step(self) -> int:
        """The newest step that was taken."""
        path = self.run / "metrics.jsonl"
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1000))
            *lines, _ = file.read().split(b'{"step": ')
        return int(lines[-1].split(b",")[0]) if lines and lines[-1] else 0

    def _check_checkpoints(self) -> None:
        """Every checkpoint is whole, but for those that were damaged on purpose."""
        for folder in checkpoints(self.run):
            found = list(problems(folder))
            assert not found or folder in self.damaged, found

    def _damage(self) -> bool:
        """Flip a byte of the newest checkpoint, if the one before is whole; whether it is."""
        *others, newest = [None, None, *checkpoints(self.run)]
        if others[-1] is None or newest is None or [*problems(others[-1]), *problems(newest)]:
            return False
        path = next(newest.glob("*.safetensors"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        self.damaged.append(newest)
        self.open_damage = newest
        return True

    def _check_passed_over(self) -> None:
        """The newest checkpoint that was damaged is named, and still there."""
        damaged, self.open_damage = self.open_damage, None
        if damaged is None:
            return
        words = f"passing over a damaged checkpoint: {damaged}"
        if words in self.job.said():
            # The run may have come past it by now, with a checkpoint of its own in that place.
            assert damaged.exists() or self._step() > checkpoint_step(damaged), damaged
        else:
            # The start before was killed late: it had gone on, and may have replaced it.
            assert any(words in said_in(log) for log in self._logs()), words
        self.found_damaged += 1

    def _logs(self) -> list[Path]:
        return sorted(self.folder.glob("launch-*.log"))

    def _check_words(self) -> None:
        """Ranks left with a message and by themselves."""
        for log in self._logs():
            said = said_in(log)
            assert "forcefully exiting" not in said, f"{log}: torchrun had to kill ranks"
            assert "/teleflm/cli/main.py" not in said, f"{log}: a rank left with a traceback"
            assert "another process is" not in said, f"{log}: a lock was not let go"


def _told(seen: Seen) -> str:
    back = "" if seen.back is None else f", back after {seen.back:.1f} s"
    damaged = ", newest checkpoint damaged" if seen.damaged else ""
    what = f"{seen.kill.target} in a {seen.kill.moment}"
    return f"{what:<16} from step {seen.kill.step}: left after {seen.left:.1f} s{back}{damaged}"


def summary(seen: list[Seen]) -> str:
    """A table: kills by target and moment, and how long it took."""
    rows = [f"{'':8}" + "".join(f"{m:>7}" for m in get_args(Moment)) + "   left, s      back, s"]
    for target in get_args(Target):
        of = [s for s in seen if s.kill.target == target]
        counts = "".join(f"{sum(s.kill.moment == m for s in of):7}" for m in get_args(Moment))
        times = "   ".join(
            f"{median(found):4.1f} ≤ {max(found):4.1f}" if found else ""
            for found in ([s.left for s in of], [s.back for s in of if s.back is not None])
        )
        rows.append(f"{target:8}{counts}   {times}")
    return "\n".join(rows)


def make_store(folder: Path) -> Path:
    """A small token store."""
    corpus = folder / "code.txt"
    corpus.write_text("".join(CODE.format(i, i * 7 % 101) for i in range(1500)), encoding="utf-8")
    train_tokenizer([corpus], 364, folder / "tokenizer")
    return prepare([corpus], folder / "tokenizer", folder / "store", held_out=0.1).path


def main() -> int:
    """Run the drill; 1 where something was not as it has to be, and the folder stays."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="teleflm-faults-"))
    drill = Drill(make_store(folder), folder, plan(options.kills, options.seed))
    started = time.monotonic()
    try:
        seen = drill.go()
    except AssertionError as error:
        print(f"{error}\nfailed; logs are in {folder}", file=sys.stderr)
        return 1
    print(summary(seen))
    minutes = (time.monotonic() - started) / 60
    print(
        f"{len(seen)} kills and {drill.found_damaged} damaged checkpoints in {minutes:.0f} min: "
        "tensors, metrics and lineage are those of the undisturbed run, bit for bit"
    )
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
