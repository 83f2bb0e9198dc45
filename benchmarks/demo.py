"""What the demo promises, checked on a real one: time, losses, certificates, exports.

    python benchmarks/demo.py --out demo

Runs `teleflm demo` in OUT (a finished demo there is only read) and fails where a promise is broken.
"""

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# Of the machine: 2 cores. Of the others: issue and certificate bounds, all relative.
_MINUTES, _GROWTH, _EXPORT = 15.0, 2e-5, 1e-5


class Promise(NamedTuple):
    """One figure beside what it has to be below."""

    what: str
    figure: float
    bound: float

    @property
    def holds(self) -> bool:
        """A figure that is no number holds nothing."""
        return self.figure <= self.bound


def promises(summary: dict[str, Any]) -> list[Promise]:
    """Everything that a demo's summary can be held to."""
    found = []
    for growth in summary["growths"]:
        name, proof = f"growth to {growth['to']}", growth["certificate"]
        change = abs(growth["loss_after"] / growth["loss_before"] - 1)
        found += [
            Promise(f"{name}: change of the held-out loss", change, _GROWTH),
            Promise(
                f"{name}: logits, float64",
                proof["function"]["max_relative_logit_error"],
                proof["bounds"]["function"],
            ),
            Promise(
                f"{name}: logits, float32",
                proof["function"]["float32_max_relative_logit_error"],
                proof["bounds"]["float32_function"],
            ),
            Promise(
                f"{name}: losses of {proof['trajectory']['steps']} steps",
                proof["trajectory"]["max_relative_loss_difference"],
                proof["bounds"]["trajectory"],
            ),
        ]
    for before, after in pairwise(summary["stages"]):
        found.append(
            Promise(f"{after['name']}: last loss", after["loss_after"], before["loss_after"])
        )
    for export in summary["exports"]:
        error = export["max_relative_logit_error"]
        found.append(Promise(f"export {export['format']}: logits", error, _EXPORT))
    return found


def main(command_line: list[str] | None = None) -> int:
    """Run and print; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="the demo's folder")
    out = parser.parse_args(command_line).out
    started = time.monotonic()
    command = [sys.executable, "-m", "teleflm", "demo", "--out", str(out), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    minutes = (time.monotonic() - started) / 60
    checked = [Promise("minutes", minutes, _MINUTES), *promises(json.loads(done.stdout))]
    for promise in checked:
        verdict = "" if promise.holds else "  BROKEN"
        print(f"{promise.what:45}{promise.figure:>12.4g}  bound {promise.bound:.4g}{verdict}")
    return int(not all(promise.holds for promise in checked))


if __name__ == "__main__":
    sys.exit(main())
