"""What growth masks cost: a step inside a ramp beside one of the ordinary grown model, in turn.

python benchmarks/ramp.py
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import Ours, fresh_state, shape, state_in_ramp
from benchmarks.timing import time_alternately


def main(command_line: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parent", default="nano-102b", help="a preset, YAML file or model folder")
    parser.add_argument("--child", default="nano-1t")
    parser.add_argument("--vocab-size", type=int, default=4096, help="where a shape has none")
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--pairs", type=int, default=7, help="measured pairs")
    arguments = parser.parse_args(command_line)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parent, child = (
        shape(spec, arguments.vocab_size, arguments.sequence_length)
        for spec in (arguments.parent, arguments.child)
    )
    size = (arguments.batch, arguments.sequence_length + 1)
    batch = torch.randint(child.vocab_size, size, generator=torch.Generator().manual_seed(0))
    batch = batch.to(device)
    masked = Ours(state_in_ramp(parent, child), batch, arguments.batch)
    ordinary = Ours(fresh_state(child), batch, arguments.batch)
    # The ratio is that of the second to the first: how many times as long the ramp's step takes.
    pairs = time_alternately(ordinary, masked, arguments.pairs)
    print(f"{arguments.parent} → {arguments.child}, {arguments.batch} × {size[1] - 1} tokens")
    print(f"ordinary step {median(pairs.ours) * 1e3:,.0f} ms")
    print(f"in the ramp   {median(pairs.theirs) * 1e3:,.0f} ms")
    print(f"ratio {pairs.ratio:.2f} ({pairs.ratios[0]:.2f} to {pairs.ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
