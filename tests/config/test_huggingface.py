"""A `config.json` from elsewhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.config.families import FAMILIES, formats_of
from teleflm.config.huggingface import from_huggingface, to_huggingface, weight_folds
from teleflm.config.model import FEATURES, LAYER_KINDS, ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.errors import ConfigError
from tests.tiny import FIELDS, MODEL

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
LAYERS = ["sliding_window", "use_sliding_window", "layer_types", "max_window_layers"]
NOPE = ["no_rope_layers", "no_rope_layer_interval"]
KEYS = sorted({*to_huggingface(MODEL, "teleflm"), *to_huggingface(MODEL, "granite"), "rope_type"})


@given(
    st.sampled_from(list(FAMILIES)),
    st.dictionaries(st.sampled_from([*KEYS, *LAYERS, *NOPE, "rope_parameters"]), JSON),
)
def test_any_foreign_config_is_a_model_or_an_error(kind: str, change: dict[str, Any]) -> None:
    # A downloaded file is data from elsewhere: whatever stands in it, no traceback.
    base = {key: to_huggingface(MODEL, "teleflm").get(key) for key in FIELDS if key in KEYS}
    data = {**base, "model_type": kind, **change}
    try:
        fields = from_huggingface(data, "config.json")
        model = resolve_model(fields)
        folds = weight_folds(data, model, "config.json")
    except ConfigError:
        return
    assert isinstance(model, ModelConfig)
    assert all(factor > 0 for factor in folds.values())


SOME = MODEL.model_copy(update={"num_hidden_layers": 6})


@given(
    st.sets(st.sampled_from(FEATURES)),
    st.sets(st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
)
def test_a_format_that_holds_a_model_gives_it_back(
    on: set[str], sliding: set[int], nope: set[int]
) -> None:
    update: dict[str, Any] = dict.fromkeys(on, True)
    if sliding:
        update |= {"sliding_window": 7, "sliding_layers": tuple(sorted(sliding))}
    model = SOME.model_copy(update={**update, "nope_layers": tuple(sorted(nope))})
    held = formats_of(model)
    for kind in held:
        back = resolve_model(from_huggingface(to_huggingface(model, kind), "config.json"))
        for field in (*FEATURES, *LAYER_KINDS, "sliding_window"):
            assert getattr(back, field) == getattr(model, field), (kind, field)
    # SmolLM3 says all but norms of queries and keys, and biases of one part of the attention.
    if "qk_norm" not in on and ("qkv_bias" in on) == ("o_bias" in on):
        assert "smollm3" in held
    if nope:
        assert set(held) <= {"smollm3"}


@pytest.mark.parametrize(
    ("family", "given", "words"),
    [
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types is "),
        ("qwen3", {"layer_types": ["chunked_attention"] * 2}, "layer_types is "),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "there is no window"),
        ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers is no list"),
        ("llama", {"sliding_window": 4}, "sliding_window = 4 is not part"),
        ("granite", {"sliding_window": 4}, "sliding_window = 4 is not part"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(
    family: str, given: dict[str, Any], words: str
) -> None:
    shape = {key: getattr(MODEL, key) for key in FIELDS if key in KEYS}
    data = {**shape, "num_hidden_layers": 2, "model_type": family, **given}
    with pytest.raises(ConfigError, match=words):
        from_huggingface(data, "config.json")


def test_a_window_as_wide_as_the_context_hides_nothing() -> None:
    shape = {key: getattr(MODEL, key) for key in FIELDS if key in KEYS}
    for window, layers in ((63, (0, 1)), (64, ())):
        data = {**shape, "model_type": "mistral", "sliding_window": window}
        data |= {"max_position_embeddings": 64, "num_hidden_layers": 2}
        model = resolve_model(from_huggingface(data, "config.json"))
        assert model.sliding_layers == layers
