"""Next-token loss of pre-training and supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engine.algorithms.aggregation import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


class TokenOutputs(Protocol):
    """Outputs of the model for each token of a row."""

    @property
    def logp(self) -> Tensor:
        """Log-probabilities of the labels, [T]."""
        ...


class WeightedRow(Protocol):
    """A row whose tokens count in the loss by their weight."""

    @property
    def weights(self) -> Tensor:
        """Float32 [T], 0 for tokens that are not to be learned."""
        ...


def next_token(outputs: TokenOutputs, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
    """Return :func:`next_token_loss` of a row: the loss that ``TrainedModel.update`` is given."""
    return next_token_loss(outputs.logp, row.weights)


def next_token_loss(logp: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted negative log-likelihood of the labels, and its metrics.

    Args:
        logp: [T] log-probabilities of the labels under the policy; gets the gradient.
        weights: [T], 0 for tokens that are not to be learned (``token_mean_weights`` elsewhere).
    Returns:
        The scalar loss in nats, and the detached scalar ``loss``; both add up over microbatches and
        ranks.
    """
    loss = weighted_sum(-logp, weights)
    return loss, {"loss": loss.detach()}
