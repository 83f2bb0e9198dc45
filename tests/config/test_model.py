"""Shapes that can be and cannot be."""

from typing import Any

import pytest

from teleflm.config.resolve import resolve_model
from teleflm.errors import ConfigError
from tests.tiny import FIELDS


def test_heads_are_filled_in() -> None:
    plain = {key: FIELDS[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    model = resolve_model({**plain, "num_attention_heads": 4})
    assert (model.num_key_value_heads, model.head_dim, model.queries_per_group) == (4, 8, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 32 does not divide by num_attention_heads 5"),
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        (
            {"num_key_value_heads": 3},
            "heads 4 does not divide by num_key_value_heads 3",
        ),
        ({"head_dim": 5}, "head_dim 5 is odd"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "32"}, "hidden_size.*got '32'"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
    ],
)
def test_shapes_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_model({**FIELDS, **change})
