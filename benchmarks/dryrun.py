"""A dry run beside that of another checkout: seconds in turn, and whether the figures are equal.

    git worktree add ../before 21c7060
    python benchmarks/dryrun.py --against ../before/src --at-least 3

What is timed is the whole command. What follows `--` is the dry run's; a middle rank of Tele-FLM-1T
unless given.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# As a script it is found beside its package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import time_alternately

_OURS = Path(__file__).parents[1] / "src"
_RANK = ["examples/tele-flm-1t.yaml", "--world-size", "896", "--rank", "453"]


def facts(source: Path, command: list[str]) -> dict[str, Any]:
    """What `teleflm dryrun --json` of a checkout's source folder says."""
    done = subprocess.run(
        [sys.executable, "-m", "teleflm", "dryrun", *command, "--json"],
        env={**os.environ, "PYTHONPATH": str(source.resolve())},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(argv: list[str] | None = None) -> int:
    """0; 1 where the figures differ, or the median ratio is below --at-least."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, metavar="SRC")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--at-least", type=float, default=0.0, metavar="RATIO")
    parser.add_argument("command", nargs="*", default=_RANK)
    arguments = parser.parse_args(argv)
    said: dict[Path, dict[str, Any]] = {}

    def run(source: Path) -> None:
        said[source] = facts(source, arguments.command)

    pairs = time_alternately(
        lambda: run(_OURS), lambda: run(arguments.against), arguments.pairs, warmup=0
    )
    for after, before in zip(pairs.ours, pairs.theirs, strict=True):
        print(f"{after:7.1f} s   before {before:7.1f} s   {before / after:.2f} times as fast")
    print(f"median {pairs.ratio:.2f}")
    ours, theirs = said[_OURS], said[arguments.against]
    differ = [key for key in theirs if ours.get(key) != theirs[key]]
    for key in differ:
        print(f"{key} differs: {ours.get(key)} and before {theirs[key]}")
    return int(bool(differ) or pairs.ratio < arguments.at_least)


if __name__ == "__main__":
    sys.exit(main())
