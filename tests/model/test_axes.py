"""The axes table is the network: names, order, shapes, counts, and what is read off them."""

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teleflm.config.model import FEATURES, ModelConfig
from teleflm.config.resolve import PUBLISHED_PARAMETERS, resolve_model
from teleflm.model.axes import (
    PARAMETERS,
    Axis,
    in_layer,
    layer_of,
    parameter_count,
    parameter_names,
    parameter_of,
    pattern_of,
)
from teleflm.model.network import TeleFLM
from tests.tiny import MODEL


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("tele-flm-52b", 52_817_829_888),
        ("tele-flm-102b", 102_198_487_040),
        ("tele-flm-1t", 1_083_735_265_280),
        ("tele-flm-mup", 281_215_488),
    ],
)
def test_counts_at_a_vocabulary_of_80_000(preset: str, count: int) -> None:
    model = resolve_model(preset)
    d, f, layers, v = (
        model.hidden_size,
        model.intermediate_size,
        model.num_hidden_layers,
        model.vocab_size,
    )
    assert parameter_count(model) == count
    assert layers * (4 * d * d + 3 * d * f + 2 * d) + d + 2 * v * d == count
    assert abs(count / PUBLISHED_PARAMETERS[preset] - 1) < 0.01


@pytest.mark.parametrize(
    ("preset", "vocabulary", "count"),
    [
        ("tele-flm-52b", 80_384, 52_824_121_344),
        ("tele-flm-52b", 80_896, 52_832_509_952),
        ("tele-flm-1t", 81_920, 1_083_813_908_480),
    ],
)
def test_counts_at_padded_vocabularies(preset: str, vocabulary: int, count: int) -> None:
    model = resolve_model({"preset": preset, "vocab_size": vocabulary})
    assert parameter_count(model) == count


SIZES = st.integers(1, 12)
ON = st.sets(st.sampled_from(FEATURES))


@given(SIZES, SIZES, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), SIZES, ON)
def test_the_table_is_the_network_s_state_dict(
    hidden: int, ffn: int, layers: int, groups: int, queries: int, vocabulary: int, on: set[str]
) -> None:
    model = ModelConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=groups * queries,
        num_key_value_heads=groups,
        head_dim=4,
    ).model_copy(update=dict.fromkeys(on, True))
    with torch.device("meta"):
        state = dict(TeleFLM(model).named_parameters())
    names = list(parameter_names(model))
    assert list(state) == names
    assert [tuple(t.shape) for t in state.values()] == [parameter_of(n).shape(model) for n in names]
    assert sum(t.numel() for t in state.values()) == parameter_count(model)


def test_mup_classes() -> None:
    matrices = {pattern for pattern, row in PARAMETERS.items() if row.is_matrix_like}
    attention = {f"model.layers.*.self_attn.{x}_proj.weight" for x in "qkvo"}
    ffn = {f"model.layers.*.mlp.{x}_proj.weight" for x in ("gate", "up", "down")}
    # The head reads a width axis but writes the vocabulary: vector-like, as the embedding.
    assert matrices == attention | ffn


def test_masks_fold_into_what_writes_the_stream_and_reads_new_units() -> None:
    writers = {p for p, row in PARAMETERS.items() if Axis.HIDDEN in row.folds}
    assert {p.split(".")[-2] for p in writers} == {"embed_tokens", "o_proj", "down_proj"}
    for pattern, row in PARAMETERS.items():
        # A fold on an output axis other than the stream would mask a unit before its
        # non-linearity; on an input axis it must be one that only this tensor reads.
        assert set(row.folds) <= set(row.axes), pattern
        if row.writes_branch:
            assert row.axes[0] is Axis.HIDDEN
            assert set(row.axes) == set(row.folds)


def test_names() -> None:
    name = "model.layers.12.mlp.up_proj.weight"
    assert pattern_of(name) == "model.layers.*.mlp.up_proj.weight"
    assert (layer_of(name), layer_of("lm_head.weight")) == (12, None)
    assert in_layer(name, 3) == "model.layers.3.mlp.up_proj.weight"
    assert parameter_of(name) is PARAMETERS[pattern_of(name)]


def test_initial_deviations_follow_the_width() -> None:
    for width in (256, 512, 8192):
        model = resolve_model({"preset": "tele-flm-52b", "hidden_size": width})
        q, head = (
            parameter_of("model.layers.0.self_attn.q_proj.weight"),
            PARAMETERS["lm_head.weight"],
        )
        assert q.init_std(model) == pytest.approx(0.024 / (width / 256) ** 0.5)
        assert head.init_std(model) == 0.004
    assert q.init_std(model) == pytest.approx(4.242e-3, rel=1e-3), "as published for the 52B"


def test_every_size_is_read_off_an_axis() -> None:
    assert {axis: axis.size(MODEL) for axis in Axis} == {
        Axis.VOCAB: 40,
        Axis.HIDDEN: 32,
        Axis.HEADS: 32,
        Axis.KV_HEADS: 16,
        Axis.HEAD_DIM: 8,
        Axis.FFN: 48,
    }
    assert prod(PARAMETERS["lm_head.weight"].shape(MODEL)) == 40 * 32
