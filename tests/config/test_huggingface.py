"""A `config.json` from elsewhere."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from teleflm.config.huggingface import from_huggingface, to_huggingface, weight_folds
from teleflm.config.model import ModelConfig
from teleflm.config.resolve import resolve_model
from teleflm.errors import ConfigError
from tests.tiny import FIELDS, MODEL

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
KEYS = sorted({*to_huggingface(MODEL, "teleflm"), *to_huggingface(MODEL, "granite"), "rope_type"})


@given(
    st.sampled_from(["TeleFLM", "llama", "mistral", "granite"]),
    st.dictionaries(st.sampled_from([*KEYS, "sliding_window", "rope_parameters"]), JSON),
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
