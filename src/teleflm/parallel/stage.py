"""What one pipeline stage computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from teleflm.config.model import ModelConfig
from teleflm.config.run import Precision
from teleflm.model.loss import TokenScores, Vocabulary, cross_entropy_sum, token_scores
from teleflm.model.network import TeleFLM
from teleflm.model.precision import autocast
from teleflm.parallel.tensor import local_part, whole_sequence


class Stage(nn.Module):
    """From token ids or the residual stream to the residual stream or the loss.

    Args:
        network: the stage's part of it, see `stage_network`.
        vocabulary: the rows of the head that this rank has.
        is_first, is_last: whether it embeds, and whether it has the head.
        precision: what products are computed in.

    Attributes:
        listener: of the last stage, where one is set: gets the scores of each micro-batch, whose
            loss has no gradient then.
    """

    listener: Callable[[TokenScores], object] | None = None

    def __init__(
        self,
        network: TeleFLM,
        vocabulary: Vocabulary,
        *,
        is_first: bool,
        is_last: bool,
        precision: Precision,
    ) -> None:
        super().__init__()
        self.network = network
        self._vocabulary = vocabulary
        self.is_first, self.is_last = is_first, is_last
        self._precision = precision

    def forward(self, x: Tensor, targets: Tensor, starts: Tensor | None = None) -> Tensor:
        """One micro-batch.

        Args:
            x: token ids (B, S) in the first stage, else the residual stream (B, S / tp, D).
            targets, starts: see `Batch`.

        Returns:
            Σ loss in nats, shape (1,) float64, in the last stage; else the residual stream.
        """
        network = self.network
        with autocast(x.device, self._precision):
            if self.is_first:
                x = network.embed(x)
            x = network.layers(x, targets.shape[1], starts)
            if not self.is_last:
                return x
            head = (
                whole_sequence(network.model.norm(x)),
                local_part(network.lm_head.weight),
                network.logit_multiplier,
                targets,
                self._vocabulary,
            )
            if self.listener is None:
                return torch.stack([cross_entropy_sum(*head)])
            scores = token_scores(*head)
            self.listener(scores)
            return torch.stack([scores.nats.double().sum()])


def stage_network(model: ModelConfig, layers: range, *, is_first: bool, is_last: bool) -> TeleFLM:
    """A network on the meta device without what other stages hold; names stay those of all."""
    with torch.device("meta"):
        network = TeleFLM(model)
    decoder = network.model
    for index in range(model.num_hidden_layers):
        if index not in layers:
            delattr(decoder.layers, str(index))
    if not is_first:
        del decoder.embed_tokens
    if not is_last:
        del decoder.norm, network.lm_head
    return network
