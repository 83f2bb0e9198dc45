"""Floating-point operations of the network, read off the axes table."""

from math import prod

from teleflm.config.model import ModelConfig
from teleflm.model.axes import EMBEDDING, PARAMETERS, Axis


def flops_per_token(model: ModelConfig, sequence_length: int) -> int:
    """Forward and backward FLOPs for one token: 6 for each matrix entry (the head's included, tied
    or not, the embedding's look-up not), plus attention's 12 · heads · head_dim · S/2 a layer
    (causal)."""
    matrices = 0
    for pattern, parameter in PARAMETERS.items():
        if parameter.is_matrix and pattern != EMBEDDING:
            repeats = model.num_hidden_layers if "*" in pattern else 1
            matrices += repeats * prod(parameter.shape(model))
    attention = model.num_hidden_layers * Axis.HEADS.size(model) * sequence_length
    return 6 * matrices + 6 * attention
