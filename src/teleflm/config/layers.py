"""Layers that differ in their attention: some see a window only, some have no RoPE.

Both are kept as the numbers of those layers. Files say them by layer too, or by a family's pattern.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from teleflm.config.formats import HubKind
from teleflm.config.model import ModelConfig
from teleflm.errors import ConfigError

_FULL, _SLIDING = "full_attention", "sliding_attention"
_QWEN = ("qwen2", "qwen3")
_BY_LAYER = (*_QWEN, "smollm3")


def read_layers(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Our fields `sliding_window`, `sliding_layers` and `nope_layers` of a `config.json` with its
    family's defaults, as transformers 5 reads it.

    Raises:
        ConfigError: a kind of layer that we do not have, or lists that do not fit the layers.
    """
    count, family = data["num_hidden_layers"], data["model_type"]
    without_rope = _without_rope(data, source) if family == "smollm3" else ()
    window = data.get("sliding_window")
    if family in _BY_LAYER and not data.get("use_sliding_window"):
        window = None
    if family in _BY_LAYER and data.get("layer_types") is not None:
        layers = _listed(data["layer_types"], count, source)
        if layers and window is None:
            raise ConfigError(
                f"{source}: layer_types has {_SLIDING}, and use_sliding_window or sliding_window "
                "says that there is no window; correct the file"
            )
    elif window is None:
        layers = ()
    elif family == "smollm3":
        layers = without_rope
    else:
        first = data.get("max_window_layers", 28) if family in _QWEN else 0
        layers = tuple(range(min(first, count), count))
    # A window as wide as the context hides nothing.
    if not layers or window is None or window >= data["max_position_embeddings"]:
        return {"nope_layers": without_rope}
    if family not in (*_BY_LAYER, "mistral"):
        raise ConfigError(
            f"{source}: sliding_window = {window!r} is not part of this architecture; a model that "
            "uses it cannot be read"
        )
    return {"sliding_window": window, "sliding_layers": layers, "nope_layers": without_rope}


def _without_rope(data: Mapping[str, Any], source: str) -> tuple[int, ...]:
    """SmolLM3's `no_rope_layers` has a 1 where there *is* RoPE."""
    count, listed = data["num_hidden_layers"], data.get("no_rope_layers")
    if listed is None:
        interval = data.get("no_rope_layer_interval", 4)
        return tuple(layer for layer in range(count) if (layer + 1) % interval == 0)
    if not isinstance(listed, list) or len(listed) < count:
        raise ConfigError(
            f"{source}: no_rope_layers is no list of a number for each of {count} layers; correct "
            "the file"
        )
    return tuple(layer for layer in range(count) if not listed[layer])


def _listed(kinds: Any, count: int, source: str) -> tuple[int, ...]:
    if not isinstance(kinds, list) or len(kinds) != count or set(kinds) - {_FULL, _SLIDING}:
        raise ConfigError(
            f"{source}: layer_types is {kinds!r}, not a list of {_FULL} and {_SLIDING} for {count} "
            "layers; a model of other layers cannot be read"
        )
    return tuple(layer for layer, kind in enumerate(kinds) if kind == _SLIDING)


def write_layers(model: ModelConfig, kind: HubKind) -> dict[str, Any]:
    """The fields of a `config.json` that say it, for a format that can."""
    if kind == "mistral":
        return {"sliding_window": model.sliding_window}
    if kind not in _BY_LAYER:
        return {}
    layers = range(model.num_hidden_layers)
    fields: dict[str, Any] = {
        "use_sliding_window": bool(model.sliding_layers),
        "sliding_window": model.sliding_window,
        "layer_types": [_SLIDING if n in model.sliding_layers else _FULL for n in layers],
    }
    if kind == "smollm3":
        fields["no_rope_layers"] = [int(layer not in model.nope_layers) for layer in layers]
    else:
        # What releases without `layer_types` go by.
        fields["max_window_layers"] = min(model.sliding_layers, default=model.num_hidden_layers)
    return fields


def unsaid_layers(model: ModelConfig, kind: HubKind) -> Iterator[str]:
    """What of it a format cannot say."""
    count = model.num_hidden_layers
    some = kind in _BY_LAYER or (kind == "mistral" and len(model.sliding_layers) == count)
    if model.sliding_layers and not some:
        yield f"sliding_window = {model.sliding_window} in the layers {_text(model.sliding_layers)}"
    if model.nope_layers and kind != "smollm3":
        yield f"no RoPE in the layers {_text(model.nope_layers)}"


Pattern = Callable[[int], bool]


def patterns_of(model: ModelConfig) -> dict[str, Pattern | None]:
    """By the two fields, what says of any layer whether it is one of them; None where no pattern of
    a family does. Windows are in all layers from one on (Mistral, Qwen) or in those without RoPE
    (SmolLM3), and those are every so many.
    """
    without_rope = _every(model.nope_layers, model.num_hidden_layers)
    if model.sliding_layers == model.nope_layers:
        return {"sliding_layers": without_rope, "nope_layers": without_rope}
    sliding = _from_one_on(model.sliding_layers, model.num_hidden_layers)
    return {"sliding_layers": sliding, "nope_layers": without_rope}


def _every(layers: tuple[int, ...], count: int) -> Pattern | None:
    interval = min(layers, default=count) + 1
    follow = layers == tuple(range(interval - 1, count, interval))
    return (lambda layer: bool(layers) and (layer + 1) % interval == 0) if follow else None


def _from_one_on(layers: tuple[int, ...], count: int) -> Pattern | None:
    first = min(layers, default=count)
    follow = layers == tuple(range(first, count))
    return (lambda layer: bool(layers) and layer >= first) if follow else None


def _text(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))
