"""A growth as steps: each by one operator, over the shapes that lie between."""

from collections.abc import Iterator
from dataclasses import dataclass

from teleflm.config.growth import DepthOperator, Operator, WidthConfig, grown_eps
from teleflm.config.model import FEATURES, ModelConfig
from teleflm.errors import GrowthError
from teleflm.growth.event import OPERATORS

SIZES = {
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads", "num_key_value_heads"),
    "ffn": ("intermediate_size",),
}
"""The fields of a model that a growth of each width axis changes."""
_LAYERS = "num_hidden_layers"
# Growing changes sizes; these say what function the sizes belong to.
_MUST_STAY = (
    *("head_dim", "vocab_size", "rope_theta", "rope_scaling", "sliding_window"),
    *("parametrization", "mup_base_width"),
    *FEATURES,
)
_MUST_NOT_SHRINK = (
    "hidden_size",
    "intermediate_size",
    _LAYERS,
    "num_key_value_heads",
    "queries_per_group",
)
_CLONED = {
    "hidden": ("hidden_size",),
    "heads": ("num_key_value_heads", "queries_per_group"),
    "ffn": ("intermediate_size",),
}
"""The fields of a model that a growth of each width axis changes."""


@dataclass(frozen=True)
class Step:
    """From one model to the next by one operator."""

    operator: Operator
    parent: ModelConfig
    child: ModelConfig


def growth_steps(
    parent: ModelConfig, to: ModelConfig, width: WidthConfig, depth: DepthOperator
) -> list[Step]:
    """The steps from `parent` to `to`; one by masks, with nothing new, where nothing grows.

    Every step's model is an ordinary one. The multipliers change where the stream does, else by the
    masks if there are any.

    Raises:
        GrowthError: a field that must stay differs, a size shrinks, or clones do not divide; both
            values are named.
    """
    _check(parent, to, width)
    operators = [op for op in OPERATORS if _grown(op, parent, to, width, depth)] or ["mask"]
    carrier = "mask" if "mask" in operators else operators[0]
    if to.hidden_size > parent.hidden_size:
        carrier = width.hidden
    steps: list[Step] = []
    model = parent
    for operator in operators:
        update = {key: getattr(to, key) for key in _grown(operator, parent, to, width, depth)}
        if operator == carrier:
            update |= {"input_mult": to.input_mult, "output_mult": to.output_mult}
        if "hidden_size" in update:
            update["rms_norm_eps"] = to.rms_norm_eps
        plain = {"max_position_embeddings", "matrix_init_std", "vector_init_std"}
        update |= {key: getattr(to, key) for key in plain}
        child = model.model_copy(update=update)
        steps.append(Step(operator, model, child))
        model = child
    return steps


def _grown(
    operator: str, parent: ModelConfig, to: ModelConfig, width: WidthConfig, depth: DepthOperator
) -> list[str]:
    """The sizes that grow by an operator."""
    sizes = [
        size for axis, sizes in SIZES.items() if getattr(width, axis) == operator for size in sizes
    ]
    if depth == operator:
        sizes.append(_LAYERS)
    return [size for size in sizes if getattr(to, size) != getattr(parent, size)]


def _check(parent: ModelConfig, to: ModelConfig, width: WidthConfig) -> None:
    for field in _MUST_STAY:
        old, new = getattr(parent, field), getattr(to, field)
        if old != new:
            raise GrowthError(f"{field} must stay {old} in a growth, the target has {new}")
    eps = grown_eps(parent, to, width)
    if to.rms_norm_eps != eps:
        why = "" if eps == parent.rms_norm_eps else f", or become {eps} with zeros in the stream"
        raise GrowthError(
            f"rms_norm_eps must stay {parent.rms_norm_eps} in a growth{why}; the target has "
            f"{to.rms_norm_eps}"
        )
    for field in _MUST_NOT_SHRINK:
        old, new = getattr(parent, field), getattr(to, field)
        if new < old:
            hint = ""
            if field == "queries_per_group":
                hint = "; give the target fewer num_key_value_heads or more num_attention_heads"
            raise GrowthError(f"{field} would shrink from {old} to {new}; growth only adds{hint}")
    for axis, field in _cloned(width):
        old, new = getattr(parent, field), getattr(to, field)
        if new % old:
            raise GrowthError(
                f"{field} {new} is no multiple of {old}, and clones come in whole multiples; take "
                f"{new // old * old} or {(new // old + 1) * old}, or mask or zero for {axis}"
            )


def _cloned(width: WidthConfig) -> Iterator[tuple[str, str]]:
    for axis, fields in _CLONED.items():
        if getattr(width, axis) == "clone":
            yield from ((axis, field) for field in fields)
