"""What a law in sizes and tokens says of a series: the loss that each stage ends at, when to grow.

A grown model begins with its parent's loss. To the law it is a model of its size that has read as
many tokens as lead there from scratch, which are fewer than its parent's, and goes on from there:
a growth loses the tokens between, and nothing else. What the ramp costs, and whether the stages'
schedules do what one from scratch would, the law does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from teleflm.report.prediction import TokenLawFigures


@dataclass(frozen=True)
class StageSize:
    """A stage as the law sees it, in millions: parameters, and tokens of its own; and what a token
    costs it, in any unit that the stages share."""

    parameters: float
    tokens: float
    token_cost: float


@dataclass(frozen=True)
class StageLoss:
    """What the law says of a stage; tokens are millions.

    Attributes:
        begin: the loss that it begins with, None of the first.
        head_start: tokens from scratch that lead there, 0 of the first.
        end: the loss that it ends with.
        grow_after: its own tokens after which one of the next stage gains more for what it costs;
            None of the last stage.
    """

    begin: float | None
    head_start: float
    end: float
    grow_after: float | None


def stage_losses(law: TokenLawFigures, stages: Sequence[StageSize]) -> list[StageLoss]:
    """The losses of a series, stage by stage."""
    found: list[StageLoss] = []
    begin, head_start = None, 0.0
    for index, stage in enumerate(stages):
        if begin is not None:
            head_start = equivalent_tokens(law, stage.parameters, begin)
        end = law.at(stage.parameters, head_start + stage.tokens)
        after = None
        if index + 1 < len(stages):
            best = best_growth(law, stage, stages[index + 1])
            after = max(best - head_start, 0.0)
        found.append(StageLoss(begin, head_start, end, after))
        begin = end
    return found


def equivalent_tokens(law: TokenLawFigures, parameters: float, loss: float) -> float:
    """Millions of tokens after which a model of so many millions of parameters has that loss, from
    scratch; it is above what its size can reach."""
    left = loss - law.E - law.A * parameters**-law.alpha
    return float((left / law.B) ** (-1 / law.beta))


def best_growth(law: TokenLawFigures, before: StageSize, after: StageSize) -> float:
    """Millions of tokens, from scratch, after which a stage is to give way to the next.

    With D those tokens and D' what they are worth to the next stage, the losses fall by
    β·B·D^(−β−1) and β·B·D'^(−β−1) for each token. The second is more for what it costs once
    (D / D')^(1+β) is the ratio of the costs, and (D / D')^β is 1 + Δ·D^β / B with Δ what the sizes
    differ by. It is 0 where the next stage's tokens cost no more.
    """
    ratio = after.token_cost / before.token_cost
    if ratio <= 1:
        return 0.0
    gap = law.A * (before.parameters**-law.alpha - after.parameters**-law.alpha)
    rise = ratio ** (law.beta / (1 + law.beta)) - 1
    return float((rise * law.B / gap) ** (1 / law.beta))
