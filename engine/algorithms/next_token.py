"""Next-token training: what pre-training and supervised fine-tuning minimise."""

from __future__ import annotations

from torch import Tensor

from engine.algorithms.aggregation import weighted_sum


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
