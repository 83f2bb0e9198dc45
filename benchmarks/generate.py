"""Our greedy text beside `transformers`' `LlamaForCausalLM.generate`: tokens per second of one row.

Same shape, same random weights, same prompt, float32, key-value cache and threads, taken in turn in
one process; both have to write the same tokens. Between them the memory is read as fast as this
machine can, since one row's product is nothing else than reading each weight once: the share is
what the weights of a token are, times tokens per second, over that bandwidth.

    python benchmarks/generate.py --at-least 1.5 --share 0.7
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import shape
from benchmarks.timing import Pairs, time_alternately
from teleflm.config.huggingface import to_huggingface
from teleflm.config.model import ModelConfig
from teleflm.errors import TeleflmError
from teleflm.generation.generate import generate
from teleflm.model.axes import parameter_count
from teleflm.model.network import TeleFLM

SHAPE = str(Path(__file__).with_name("llama-187m.yaml"))
LOGIT_STD = 4.0
READS = 3
# Each reads every number once; which is fastest differs between machines.
REDUCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.sum,
    torch.amax,
    torch.linalg.vector_norm,
)


@dataclass(frozen=True)
class Side:
    """One contender: `bandwidth_share` is its weights' bytes per second over the bandwidth."""

    name: str
    tokens_per_second: float
    bandwidth_share: float


@dataclass(frozen=True)
class Result:
    """What the benchmark measured; medians of the rounds, and ratios ours over theirs, round by
    round. `weight_bytes` are read for a token, `read_bandwidth` is in bytes per second."""

    model: str
    parameters: int
    weight_bytes: int
    prompt: int
    new_tokens: int
    processor: str
    threads: int
    read_bandwidth: float
    sides: tuple[Side, Side]
    ratio_min: float
    ratio: float
    ratio_max: float


def measure(arguments: argparse.Namespace) -> Result:
    """Time both.

    Raises:
        ConfigError: the shape is not known.
        RuntimeError: the two sides do not write the same tokens.
    """
    length = arguments.prompt + arguments.new_tokens
    model = shape(arguments.shape, arguments.vocab_size, length)
    network = random_network(model)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(model.vocab_size, (arguments.prompt,), generator=generator).tolist()
    ours = _ours(network, prompt, arguments.new_tokens)
    theirs = _theirs(network, prompt, arguments.new_tokens)
    written = ours(), theirs()
    if written[0] != written[1]:
        raise RuntimeError(f"not the same work: the tokens are {written[0]} and {written[1]}")
    buffer = torch.ones(arguments.megabytes * 2**18)
    bandwidths, rounds = [], Pairs([], [])
    for _ in range(arguments.rounds):
        bandwidths.append(read_bandwidth(buffer))
        pair = time_alternately(ours, theirs, 1, warmup=0)
        rounds.ours.extend(pair.ours)
        rounds.theirs.extend(pair.theirs)
    # Of the embedding one row is read.
    read = [weight for name, weight in network.named_parameters() if "embed" not in name]
    weight_bytes = sum(weight.nbytes for weight in read)

    def side(name: str, seconds: list[float]) -> Side:
        rates = [arguments.new_tokens / each for each in seconds]
        shares = [
            weight_bytes * rate / bandwidth
            for rate, bandwidth in zip(rates, bandwidths, strict=True)
        ]
        return Side(name, median(rates), median(shares))

    return Result(
        model=Path(arguments.shape).stem,
        parameters=parameter_count(model),
        weight_bytes=weight_bytes,
        prompt=arguments.prompt,
        new_tokens=arguments.new_tokens,
        processor=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        read_bandwidth=median(bandwidths),
        sides=(side("teleflm", rounds.ours), side("transformers", rounds.theirs)),
        ratio_min=rounds.ratios[0],
        ratio=rounds.ratio,
        ratio_max=rounds.ratios[-1],
    )


@torch.no_grad()
def random_network(model: ModelConfig) -> TeleFLM:
    """Normal weights that keep the size of what goes through them, and a head of sharp opinions: no
    two tokens so close that rounding decides."""
    network, generator = TeleFLM(model), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        if weight.dim() == 1:
            weight.fill_(1)
        else:
            weight.normal_(0, weight.shape[1] ** -0.5, generator=generator)
    network.lm_head.weight *= LOGIT_STD
    return network


def read_bandwidth(buffer: Tensor) -> float:
    """Bytes a second at which all threads read a buffer that no cache holds: the best of some
    passes."""

    def seconds(reduction: Callable[[Tensor], Tensor]) -> float:
        start = time.perf_counter()
        reduction(buffer)
        return time.perf_counter() - start

    best = min(seconds(reduction) for reduction in REDUCTIONS for _ in range(READS))
    return buffer.nbytes / best


def _ours(network: TeleFLM, prompt: list[int], number: int) -> Callable[[], list[int]]:
    return lambda: generate(network, [prompt], number)[0]


def _theirs(network: TeleFLM, prompt: list[int], number: int) -> Callable[[], list[int]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {**to_huggingface(network.config, "llama"), "attn_implementation": "sdpa"}
    # No end of text: both write all tokens.
    llama = LlamaForCausalLM(LlamaConfig(**fields, eos_token_id=None, pad_token_id=None)).eval()
    llama.load_state_dict(network.state_dict())
    tokens = torch.tensor([prompt])

    def write() -> list[int]:
        written = llama.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=number,
            do_sample=False,
            use_cache=True,
        )
        new: list[int] = written[0, len(prompt) :].tolist()
        return new

    return write


def table(result: Result) -> str:
    """The result for a terminal."""
    lines = [
        f"{result.model}, {result.parameters:,} parameters in fp32, {result.new_tokens} tokens "
        f"after {result.prompt}",
        f"{result.processor}, {result.threads} threads, reading {result.read_bandwidth / 1e9:.1f} "
        f"GB/s; {result.weight_bytes / 1e9:.3f} GB of weights a token",
        "",
        f"{'':14}{'tokens/s':>12}{'of reading':>12}",
    ]
    for side in result.sides:
        lines.append(f"{side.name:14}{side.tokens_per_second:>12,.1f}{side.bandwidth_share:>12.1%}")
    lines.append("")
    lines.append(
        f"ratio {result.ratio:.2f} (median of the rounds; {result.ratio_min:.2f} to "
        f"{result.ratio_max:.2f})"
    )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", default=SHAPE, help="a preset, YAML file or model folder")
    parser.add_argument("--vocab-size", type=int, default=4096, help="where the shape has none")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of the prompt")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--megabytes", type=int, default=512, help="of the buffer that is read")
    parser.add_argument("--at-least", type=float, help="exit with 1 below this median ratio")
    parser.add_argument("--share", type=float, help="exit with 1 below this share of the bandwidth")
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
    missed = [
        f"too slow: {got:.2f} {what}, and not the {wanted:.2f} asked for"
        for got, wanted, what in (
            (result.ratio, arguments.at_least, "times the tokens per second of transformers"),
            (result.sides[0].bandwidth_share, arguments.share, "of what memory gives"),
        )
        if wanted is not None and got < wanted
    ]
    print(*missed, sep="\n", end="\n" * bool(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
