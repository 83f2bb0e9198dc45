"""What it costs that documents in a sequence do not see each other: a training step on them beside
one on the same tokens as one text, in turn.

    python benchmarks/document_mask.py
    python benchmarks/document_mask.py --at-most 1.1     # exits with 1 above this ratio

On a GPU where there is one, in bf16 with compiled blocks; else on the CPU in fp32.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import Ours, fresh_state, shape
from benchmarks.timing import time_alternately

_SHAPE = Path(__file__).with_name("hidden-512.yaml")


def documents(rows: int, length: int, shortest: int, longest: int) -> Tensor:
    """Where the document of each token begins in its row, (rows, length)."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.zeros(rows, length, dtype=torch.int64)
    for row in starts:
        place = 0
        while place < length:
            row[place:] = place
            place += int(torch.randint(shortest, longest + 1, (), generator=generator))
    return starts


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--shape", default=str(_SHAPE), help="a preset or the YAML of a model")
    parser.add_argument("--sequence-length", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--documents", type=int, nargs=2, default=(100, 400), help="tokens of each")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--at-most", type=float, help="exit with 1 above this ratio of the steps")
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    arguments = parse(command_line)
    length = arguments.sequence_length
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    model = shape(arguments.shape, 8192, length)
    size = arguments.batch, length + 1
    rows = torch.randint(model.vocab_size, size, generator=torch.Generator().manual_seed(1))
    starts = documents(arguments.batch, length, *arguments.documents)
    masked, plain = (
        Ours(
            fresh_state(model),
            rows.to(device),
            arguments.batch,
            dtype="bf16" if on_gpu else "fp32",
            compile=on_gpu,
            starts=None if each is None else each.to(device),
        )
        for each in (starts, None)
    )
    found = time_alternately(masked, plain, arguments.pairs)
    ratio = 1 / found.ratio
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    count = int((starts == torch.arange(length)).sum())
    print(
        f"{name}; {arguments.batch} × {length} tokens in {count} documents: a step takes "
        f"{median(found.ours) * 1e3:.0f} ms, of one text {median(found.theirs) * 1e3:.0f} ms: "
        f"{ratio:.3f} times as long (median of {arguments.pairs} pairs)"
    )
    return int(arguments.at_most is not None and ratio > arguments.at_most)


if __name__ == "__main__":
    sys.exit(main())
