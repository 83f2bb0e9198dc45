"""Our training step beside the one of `transformers.LlamaForCausalLM`: tokens per second.

Same shape, same weights, same tokens, fused AdamW, precision, clipping and threads, taken in turn
in one process; the two first losses have to agree, or it would not be the same work.

    python benchmarks/train_step.py --at-least 1.2
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import HuggingFaceLlama, Ours, fresh_state, shape
from benchmarks.products import product_rate
from benchmarks.timing import time_alternately
from teleflm.config.model import ModelConfig
from teleflm.errors import TeleflmError
from teleflm.growth.state import TrainingState
from teleflm.model.axes import parameter_count
from teleflm.model.flops import flops_per_token
from teleflm.model.precision import peak_rate
from teleflm.training.allocator import keep_freed_memory

# Relative: two bf16 programs of one function differ by 1e-4 on the nano shapes, 1e-3 on tiny ones.
SAME_LOSS = 2e-3
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Side:
    """One contender: `peak_share` is model FLOPs over a GPU's bf16 peak (the MFU), or over the rate
    of the step's own matrix products on a CPU; `peak_memory` its largest allocation in bytes, on a
    GPU alone."""

    name: str
    tokens_per_second: float
    peak_share: float | None
    peak_memory: int | None


@dataclass(frozen=True)
class Result:
    """What one benchmark measured; ratios are ours over theirs, pair by pair."""

    model: str
    parameters: int
    device: str
    dtype: str
    threads: int
    sequence_length: int
    batch: int
    compiled: bool
    matmul_flops: float | None
    sides: tuple[Side, Side]
    ratio_min: float
    ratio: float
    ratio_max: float


def measure(arguments: argparse.Namespace) -> Result:
    """Time both training steps.

    Raises:
        ConfigError: the shape is not known.
        RuntimeError: the two sides do not compute the same loss.
    """
    model = shape(arguments.shape, arguments.vocab_size, arguments.sequence_length)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()  # as a run does
    state = fresh_state(model)
    size = (arguments.batch, arguments.sequence_length + 1)
    batch = torch.randint(model.vocab_size, size, generator=torch.Generator().manual_seed(0))
    ours, our_memory, our_loss = _ready(Ours, state, batch.to(device), arguments)
    theirs, their_memory, their_loss = _ready(HuggingFaceLlama, state, batch.to(device), arguments)
    if abs(our_loss - their_loss) > SAME_LOSS * their_loss:
        raise RuntimeError(f"not the same work: first losses {our_loss} and {their_loss}")
    peak = _peak(model, device, arguments)
    pairs = time_alternately(ours, theirs, arguments.pairs, warmup=1)
    flops = flops_per_token(model, arguments.sequence_length)

    def side(name: str, seconds: list[float], memory: int | None) -> Side:
        rate = batch[:, 1:].numel() / median(seconds)
        return Side(name, rate, rate * flops / peak if peak else None, memory)

    return Result(
        model=arguments.shape,
        parameters=parameter_count(model),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        dtype=arguments.dtype,
        threads=torch.get_num_threads(),
        sequence_length=arguments.sequence_length,
        batch=arguments.batch,
        compiled=arguments.compile,
        matmul_flops=peak,
        sides=(
            side("teleflm", pairs.ours, our_memory),
            side("transformers", pairs.theirs, their_memory),
        ),
        ratio_min=pairs.ratios[0],
        ratio=pairs.ratio,
        ratio_max=pairs.ratios[-1],
    )


def _peak(model: ModelConfig, device: torch.device, arguments: argparse.Namespace) -> float | None:
    """What a share is of; None where nobody knows."""
    if device.type != "cpu":
        return peak_rate(device, arguments.dtype)
    tokens = (arguments.micro_batch or arguments.batch) * arguments.sequence_length
    return product_rate(model, tokens, _DTYPES[arguments.dtype])


def _ready(
    kind: type[Ours] | type[HuggingFaceLlama],
    state: TrainingState,
    batch: Tensor,
    arguments: argparse.Namespace,
) -> tuple[Ours | HuggingFaceLlama, int | None, float]:
    """A contender after its first step, with what it took on the GPU, and that step's loss."""
    micro_batch = arguments.micro_batch or arguments.batch
    ready = partial(
        kind, state, batch, micro_batch, dtype=arguments.dtype, compile=arguments.compile
    )
    if batch.device.type != "cuda":
        contender = ready()
        return contender, None, contender()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contender = ready()
    loss = contender()
    contender()  # with Adam's moments in place
    return contender, torch.cuda.max_memory_allocated() - before, loss


def table(result: Result) -> str:
    """The result for a terminal."""
    products = ""
    if result.matmul_flops is not None:
        products = f", products at {result.matmul_flops / 1e9:,.0f} GFLOP/s"
    lines = [
        f"{result.model}, {result.parameters:,} parameters, {result.batch} × "
        f"{result.sequence_length} tokens a step, {result.dtype}{', compiled' * result.compiled}",
        f"{result.device}, {result.threads} threads{products}",
        "",
        f"{'':14}{'tokens/s':>12}{'of peak':>10}{'memory':>12}",
    ]
    for side in result.sides:
        share = f"{side.peak_share:.1%}" if side.peak_share is not None else "–"
        memory = f"{side.peak_memory / 2**30:.2f} GiB" if side.peak_memory is not None else "–"
        lines.append(f"{side.name:14}{side.tokens_per_second:>12,.0f}{share:>10}{memory:>12}")
    lines.append("")
    lines.append(
        f"ratio {result.ratio:.2f} (median of the pairs; {result.ratio_min:.2f} to "
        f"{result.ratio_max:.2f})"
    )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", default="nano-1t", help="a preset, YAML file or model folder")
    parser.add_argument("--vocab-size", type=int, default=4096, help="where the shape has none")
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--micro-batch", type=int, help="sequences at a time; default: all")
    parser.add_argument("--dtype", choices=_DTYPES, default="bf16", help="of both sides")
    parser.add_argument("--pairs", type=int, default=7, help="measured pairs")
    parser.add_argument("--compile", action="store_true", help="both sides' blocks")
    parser.add_argument("--at-least", type=float, help="exit with 1 below this median ratio")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser.parse_args(arguments)


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    arguments = parse(command_line)
    try:
        result = measure(arguments)
    except TeleflmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(result)) if arguments.json else table(result))
    if arguments.at_least is not None and result.ratio < arguments.at_least:
        print(
            f"too slow: {result.ratio:.2f} times the tokens per second of transformers, and not "
            f"the {arguments.at_least:.2f} asked for",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
