"""PyTorch's CPU attention in fp32 and in bf16, forward and backward, in turn.

This is why model/attention.py leaves bf16 on a CPU.

    python benchmarks/attention.py
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import time_alternately

# (batch, heads, sequence length, head_dim): the demo's stages, the nano presets', and long rows.
SHAPES = (
    (16, 4, 128, 16),
    (16, 10, 128, 16),
    (16, 20, 128, 16),
    (2, 20, 1024, 16),
    (4, 8, 512, 64),
)


def attention(shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], None]:
    """Causal attention and its gradients on bf16 inputs, computed in `dtype`."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, gradient = (torch.randn(shape, generator=generator).bfloat16() for _ in range(4))
    for tensor in (q, k, v):
        tensor.requires_grad_()

    def step() -> None:
        # The casts count: they are what fp32 costs a bf16 model.
        y = F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype), is_causal=True)
        y.bfloat16().backward(gradient)

    return step


def main(pairs: int = 15) -> None:
    """Print a line for each shape."""
    print(f"CPU, {torch.get_num_threads()} threads; forward + backward, median of {pairs} pairs")
    print(f"{'batch × heads × length × dim':30}{'fp32 ms':>10}{'bf16 ms':>10}{'bf16/fp32':>11}")
    for shape in SHAPES:
        fp32, bf16 = attention(shape, torch.float32), attention(shape, torch.bfloat16)
        result = time_alternately(fp32, bf16, pairs)
        name = " × ".join(map(str, shape))
        print(
            f"{name:30}{median(result.ours) * 1e3:>10.2f}{median(result.theirs) * 1e3:>10.2f}"
            f"{result.ratio:>11.2f}"
        )


if __name__ == "__main__":
    main()
