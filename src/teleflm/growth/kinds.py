"""Of which kind the layers of a grown model are, see `config/layers.py`."""

from collections.abc import Collection, Sequence

from teleflm.config.layers import patterns_of
from teleflm.config.model import ModelConfig
from teleflm.errors import GrowthError


def with_kinds(
    model: ModelConfig,
    before: ModelConfig,
    layers: Sequence[int],
    copies: Sequence[int],
    named: ModelConfig | None,
) -> ModelConfig:
    """`model` with its layers' kinds: an old layer keeps its own, a copy has that of what it is a
    copy of, and an inserted one that which the parent's pattern has at its place.

    Args:
        model: the grown model.
        before: its parent.
        layers: for each old layer its index among the new ones.
        copies: for each new layer the old one that it is a copy of; empty where there are none.
        named: the target, where it says itself of which kinds its layers are.

    Raises:
        GrowthError: the target gives an old layer another kind, or no pattern says what an inserted
            one is.
    """
    update: dict[str, tuple[int, ...]] = {}
    for field, pattern in patterns_of(before).items():
        old = getattr(before, field)
        wanted = None if named is None else getattr(named, field)
        chosen = []
        for layer in range(model.num_hidden_layers):
            if copies or layer in layers:
                is_one = (copies[layer] if copies else layers.index(layer)) in old
            elif wanted is not None:
                is_one = layer in wanted
            elif pattern is not None:
                is_one = pattern(layer)
            else:
                raise GrowthError(
                    f"{field} {_text(old)} follow no pattern that says what the new layer {layer} "
                    f"is; name all {field} of the target, or grow in depth by copy"
                )
            if is_one:
                chosen.append(layer)
        if wanted is not None and list(wanted) != chosen:
            raise GrowthError(
                f"{field} of the target are {_text(wanted)}, and with the old layers where they "
                f"are placed they would be {_text(chosen)}; name these, or leave {field} out"
            )
        update[field] = tuple(chosen)
    return model.model_copy(update=update)


def _text(layers: Collection[int]) -> str:
    return ", ".join(map(str, layers)) or "none"
