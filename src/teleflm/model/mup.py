"""µP: learning rates and decays by parameter class, as AdamW's parameter groups.

nanoLM's rules (arXiv 2304.06875), with m = effective width / base width: matrix-like parameters
have learning rate / m and decay · m, vector-like ones (embedding, head, gains) are not scaled.
"""

from collections.abc import Iterable

import torch

from teleflm.config.run import OptimizerConfig
from teleflm.model.axes import parameter_of


def build_optimizer(
    parameters: Iterable[tuple[str, torch.nn.Parameter, float]], config: OptimizerConfig
) -> torch.optim.AdamW:
    """Fused AdamW over named parameters, each with a factor for Adam's eps.

    There is a group for each µP class and factor; `set_rates` sets the rates.
    """
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter, factor in parameters:
        kind = parameter_of(name).is_matrix_like
        groups.setdefault((kind, factor), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "is_matrix_like": kind, "eps": config.eps * factor}
            for (kind, factor), params in groups.items()
        ],
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_rates(
    optimizer: torch.optim.AdamW, config: OptimizerConfig, factor: float, mup_ratio: float
) -> None:
    """Set learning rates and decays for one step.

    Args:
        optimizer: from `build_optimizer`.
        config: the peak rates.
        factor: the schedule's share of the peak, 0 to 1.
        mup_ratio: m, the effective width over the base width.
    """
    for group in optimizer.param_groups:
        if group["is_matrix_like"]:
            group["lr"] = config.matrix_learning_rate * factor / mup_ratio
            group["weight_decay"] = config.weight_decay * mup_ratio
        else:
            group["lr"] = config.learning_rate * factor
            group["weight_decay"] = config.weight_decay
