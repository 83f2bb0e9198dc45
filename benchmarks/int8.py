"""What rounding weights to 8 bits costs: bits per byte of a model with and without it.

python benchmarks/int8.py demo/export/granite --data demo/store --at-most 1.01
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleflm.checkpoint.open import load
from teleflm.data.mixture import open_domains
from teleflm.errors import TeleflmError
from teleflm.evaluation.bpb import Evaluation, evaluate
from teleflm.generation.int8 import Int8Linear
from teleflm.model.batch import IGNORED, Batch
from teleflm.model.network import Linear, TeleFLM


class _Rounded(nn.Module):
    """A Linear with the weights and the kernel of `teleflm generate --weights int8`."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._multiply = Int8Linear(linear.weight.detach(), linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._multiply(x)


def round_weights(network: TeleFLM) -> None:
    """Have all products of a network read weights of 8 bits."""
    for path, module in list(network.named_modules()):
        if isinstance(module, Linear):
            network.set_submodule(path, _Rounded(module))


@torch.inference_mode()
def measure(network: TeleFLM, store: Path, tokens: int) -> Evaluation:
    """Held-out figures. Raises TeleflmError for a store without a held-out part."""

    def loss_sum(batch: Batch) -> float:
        logits, targets = network(batch.tokens).flatten(0, 1), batch.targets.flatten()
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum").item()

    model = network.config
    result = evaluate(
        loss_sum,
        open_domains(store),
        vocab_size=model.vocab_size,
        sequence_length=min(128, model.max_position_embeddings),
        tokens=tokens,
    )
    if result is None:
        raise TeleflmError(f"{store}: no domain has a held-out part")
    return result


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="a checkpoint or model folder")
    parser.add_argument("--data", type=Path, required=True, help="a token store")
    parser.add_argument("--tokens", type=int, default=16_384, help="of each domain")
    parser.add_argument("--at-most", type=float, help="exit with 1 above this ratio of the means")
    arguments = parser.parse_args(command_line)
    try:
        network = load(arguments.model)
        exact = measure(network, arguments.data, arguments.tokens)
        round_weights(network)
        rounded = measure(network, arguments.data, arguments.tokens)
    except TeleflmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    ratio = rounded.loss / exact.loss
    for domain, value in exact.bpb.items():
        print(f"{domain:12}{value:>9.4f}{rounded.bpb[domain]:>9.4f} bits per byte")
    print(f"{'loss':12}{exact.loss:>9.4f}{rounded.loss:>9.4f}, {ratio:.5f} times")
    return 1 if arguments.at_most is not None and ratio > arguments.at_most else 0


if __name__ == "__main__":
    sys.exit(main())
