"""Activation checkpointing: what forward does not keep, backward computes again."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from teleflm.config.run import Recomputation
from teleflm.model.documents import FORWARD

# What costs most to compute again: matrix products and attention.
_EXPENSIVE = frozenset(
    {
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,  # one with a bias
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
        *(operator.default for operator in FORWARD),
    }
)


def recompute(block: nn.Module, kind: Recomputation) -> None:
    """Have a block keep only its input (`full`), or its expensive results too (`selective`)."""
    if kind == "none":
        return
    contexts: dict[str, Any] = {}
    if kind == "selective":
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    forward = block.forward

    # In place of a wrapper module, so that parameter names stay. A function of ours, as a compiler
    # passes over a `partial` of PyTorch's own, and over the block in it.
    def forward_again(*args: Any) -> Tensor:
        output: Tensor = checkpoint(forward, *args, use_reentrant=False, **contexts)
        return output

    block.forward = forward_again


def _policy(_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operator in _EXPENSIVE:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
