"""FLOPs by the axes table against PyTorch's own counter on the real step."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from teleflm.config.resolve import resolve_model
from teleflm.model.batch import Batch
from teleflm.model.flops import flops_per_token
from teleflm.model.init import build_model, initial_state
from teleflm.model.loss import loss_sum
from tests.tiny import MODEL


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_step_s_products_are_counted(groups: int) -> None:
    """Compared: every matrix product forward and backward, attention's two included.

    The counter sees whole S × S score matrices; ours counts the causal half, so attention enters
    once more.
    """
    model = MODEL.model_copy(update={"num_key_value_heads": groups})
    network = build_model(model, initial_state(model, 0), torch.float32)
    rows = torch.zeros(3, 17, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_sum(network, Batch.next_tokens(rows)).backward()
    causal_half = 6 * model.num_hidden_layers * 32 * 16
    assert counter.get_total_flops() == 3 * 16 * (flops_per_token(model, 16) + causal_half)


def test_the_published_models() -> None:
    model = resolve_model("tele-flm-52b")
    matrices = 52_817_829_888 - 80_000 * 8192 - (2 * 64 + 1) * 8192
    assert flops_per_token(model, 4096) == 6 * matrices + 6 * 64 * 8192 * 4096
