"""Models that are alike but for their width, their depth, or how far a growth's masks are open.

A check asks how what a model does depends on its width. So all else stays: the size of heads, the
layers, the vocabulary, and how wide heads and FFN are to the stream.
"""

from dataclasses import replace

from teleflm.config.model import LAYER_KINDS, ModelConfig
from teleflm.growth.grow import Growth, grow_lazily
from teleflm.growth.state import TrainingState
from teleflm.training.start import fresh_state

# Wide enough for frequent and rare tokens; no width is in it, and a real one costs too much.
_VOCABULARY = 256
_LENGTH = 64
# More steps than anybody takes, so that masks stand still.
_RAMP = 1_000_000


def proxy(model: ModelConfig, width: int, layers: int, narrowest: int) -> ModelConfig:
    """`model` at another width and depth.

    Heads are such that the narrowest proxy of the family has four, two to a group where queries are
    grouped; all are of one size, which the width divides by.
    """
    share = model.num_attention_heads * model.head_dim / model.hidden_size
    queries = min(model.queries_per_group, 2)
    head_dim = 2 * max(1, int(narrowest * share) // 8)
    groups = max(1, round(width * share / (head_dim * queries)))
    kinds = {
        kind: tuple(layer for layer in getattr(model, kind) if layer < layers)
        for kind in LAYER_KINDS
    }
    return model.model_copy(
        update={
            "vocab_size": min(model.vocab_size, _VOCABULARY),
            "hidden_size": width,
            "intermediate_size": max(1, round(width * model.intermediate_size / model.hidden_size)),
            "num_hidden_layers": layers,
            "num_attention_heads": groups * queries,
            "num_key_value_heads": groups,
            "head_dim": head_dim,
            "max_position_embeddings": _LENGTH,
            "sliding_window": model.sliding_window if kinds["sliding_layers"] else None,
            **kinds,
        }
    )


def untrained(model: ModelConfig, seed: int) -> TrainingState:
    """The model before its first step."""
    return fresh_state(model, seed).in_memory()


def half_open(parent: ModelConfig, model: ModelConfig, seed: int) -> TrainingState:
    """The model as it is grown from an untrained parent, in the middle of a ramp."""
    growth = Growth(model, place="even", ramp=_RAMP, seed=seed + 1)
    grown = grow_lazily(fresh_state(parent, seed), growth).in_memory()
    return replace(grown, step=grown.step + _RAMP // 2)
