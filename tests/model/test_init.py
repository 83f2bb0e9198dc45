"""Initial values: the same whoever makes them, and distributed as they should be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teleflm.config.resolve import resolve_model
from teleflm.model.axes import parameter_names
from teleflm.model.init import build_model, initial_state, initial_value, truncated_normal
from tests.tiny import MODEL

GOLDEN = torch.tensor([[-1.9143624, 1.5710472, 1.1129152], [-0.1474488, -1.7812594, 0.7758010]])
NAME = "model.layers.1.self_attn.q_proj.weight"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_some_rows_are_those_of_the_whole(rows: int, columns: int, start: int, stop: int) -> None:
    whole = truncated_normal(5, "w", (rows, columns), 1.0)
    part = truncated_normal(5, "w", (rows, columns), 1.0, slice(start, max(start, stop)))
    assert torch.equal(part, whole[start : max(start, stop)])


@pytest.mark.parametrize("name", list(parameter_names(MODEL)))
def test_any_region_of_any_parameter(name: str) -> None:
    whole = initial_value(MODEL, name, 3)
    region = (slice(7, 15), slice(3, 9))[: whole.ndim]
    assert torch.equal(initial_value(MODEL, name, 3, region), whole[region])
    assert whole.dtype == torch.float32


def test_a_value_depends_on_nothing_else_of_the_model() -> None:
    # More layers, a larger vocabulary or fewer rows elsewhere leave a tensor as it is.
    other = MODEL.model_copy(update={"num_hidden_layers": 5, "vocab_size": 90})
    assert torch.equal(initial_value(MODEL, NAME, 3), initial_value(other, NAME, 3))
    grown = initial_value(other, "lm_head.weight", 3)[:40]
    assert torch.equal(initial_value(MODEL, "lm_head.weight", 3), grown)


def test_tensors_and_seeds_differ() -> None:
    names = ["a", "b", "model.layers.1.x", "model.layers.11.x"]
    made = [truncated_normal(seed, n, (4, 4), 1.0) for n in names for seed in (0, 1, 11)]
    assert len({tuple(t.flatten().tolist()) for t in made}) == len(made)
    pair = torch.stack([truncated_normal(s, "w", (200, 200), 1.0).flatten() for s in (0, 1)])
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.02


def test_the_distribution() -> None:
    std = 0.024
    drawn = truncated_normal(1, "w", (500, 803), std).double() / std
    assert drawn.abs().max() <= 3.0
    assert drawn.abs().max() > 2.99, "the cut lies at three deviations, not before"
    # Var of a normal cut at c: 1 - 2 c φ(c) / (2Φ(c) - 1), 0.9866² at c = 3.
    assert drawn.std().item() == pytest.approx(0.9866, abs=0.004)
    assert abs(drawn.mean().item()) < 0.005
    share = (drawn.abs() < 1).double().mean().item()
    assert share == pytest.approx(0.6827 / 0.9973, abs=0.003)
    rows = drawn.mean(dim=1)
    assert rows.std().item() == pytest.approx(0.9866 / 803**0.5, rel=0.1), "rows are independent"


def test_known_values() -> None:
    # Golden: a change of the stream would change every run that is started anew.
    drawn = truncated_normal(0, "w", (2, 3), 1.0)
    torch.testing.assert_close(drawn, GOLDEN, rtol=0, atol=1e-6)


def test_the_state_of_a_model() -> None:
    state = initial_state(MODEL, 0)
    network = build_model(MODEL, state, torch.float64)
    for name, weight in network.named_parameters():
        assert weight.dtype == torch.float64
        assert torch.equal(weight.detach(), state[name].double())
        if "norm" in name:
            assert (weight == 1).all()


def test_a_row_of_the_trillion_parameter_head_is_made_alone() -> None:
    model = resolve_model("tele-flm-1t")
    region = (slice(79_999, 80_000), slice(0, model.hidden_size))
    row = initial_value(model, "lm_head.weight", 0, region)
    assert row.shape == (1, 20_480)
    assert row.std().item() == pytest.approx(0.004 * 0.9866, rel=0.03)
