"""The ramp: how far the masks of a growth are open, and what µP makes of it."""

from dataclasses import dataclass

from teleflm.config.model import ModelConfig
from teleflm.growth.event import Lineage, last_masks


@dataclass(frozen=True)
class Ramp:
    """The numbers of one moment; a pure function of (lineage, step).

    Attributes:
        progress: r, the mask of new entries: 0 at the growth, 1 when it is over.
        effective_width: n = Σc² over the hidden axis, d + (D − d) r².
        width_fraction: n / D.
        input_multiplier: of the embedding output.
        logit_multiplier: k_parent^(1−r) · k_child^r / n with k = logit multiplier · width; under
            the standard parametrization no width is in it.
        mup_ratio: m = n / base width, which divides the matrix learning rate; or 1.
    """

    progress: float
    effective_width: float
    width_fraction: float
    input_multiplier: float
    logit_multiplier: float
    mup_ratio: float


def ramp_between(parent: ModelConfig, child: ModelConfig, progress: float) -> Ramp:
    """The ramp from `parent` to `child` at `progress` in [0, 1]; exact at both ends."""
    r = progress
    width = parent.hidden_size + (child.hidden_size - parent.hidden_size) * r * r
    mup_width, base = child.mup_widths(width)
    # k is output_mult · base width. At r = 0 and 1 one factor is exactly 1.
    k = (parent.output_mult * base) ** (1 - r) * (child.output_mult * base) ** r
    return Ramp(
        progress=r,
        effective_width=width,
        width_fraction=width / child.hidden_size,
        input_multiplier=parent.input_mult ** (1 - r) * child.input_mult**r,
        logit_multiplier=k / mup_width,
        mup_ratio=mup_width / base,
    )


def ramp_at(model: ModelConfig, lineage: Lineage, step: int) -> Ramp:
    """The ramp of a model with this lineage at `step`; an ordinary model's where none is open."""
    growth = last_masks(lineage)
    if growth is None or growth.source is None or step >= growth.step + growth.ramp:
        return ramp_between(model, model, 1.0)
    return ramp_between(growth.source, growth.to, (step - growth.step) / growth.ramp)
