"""Group Relative TrainedModel Optimization: the loss that DeepSeek-R1-Zero was taught with."""

from __future__ import annotations

from torch import Tensor

from engine.algorithms.aggregation import weighted_only, weighted_sum
from engine.algorithms.kl import k3
from engine.algorithms.policy_loss import clipped_policy_loss


def grpo_loss(
    logp: Tensor,
    old_logp: Tensor,
    reference_logp: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip: float,
    kl_coefficient: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one microbatch and its metrics.

    DeepSeekMath (arXiv 2402.03300) eq. 3, DeepSeek-R1 (arXiv 2501.12948) eq. 1, negated:

        sum_t w_t * (-min(ratio_t A_t, clip(ratio_t, 1 - eps, 1 + eps) A_t) + beta * KL_t)

    with w_t = 1 / (samples * |o_i|) (``sequence_mean_weights``), A_t the group-relative advantage
    (``group_advantages``) and KL_t the k3 estimate.

    Args:
        logp: [T] log-probabilities of the sampled tokens under the policy; gets the gradient.
        old_logp: [T] under the policy that sampled them.
        reference_logp: [T] under the reference model.
        advantages: [T].
        weights: [T], 0 outside responses. Tokens of weight 0 contribute nothing, whatever the other
            tensors hold there.
        clip: eps.
        kl_coefficient: beta.
    Returns:
        The scalar loss, and detached scalars ``loss``, ``policy_loss``, ``kl``, ``ratio`` and
        ``clip_fraction`` (share of tokens whose gradient the clip stopped). All of them are sums
        over tokens of weight * value: those of a minibatch are the sums of its microbatches' and
        ranks'.
    """
    logp, old_logp, reference_logp, advantages = weighted_only(
        weights, logp, old_logp, reference_logp, advantages
    )
    policy = clipped_policy_loss(logp, old_logp, advantages, clip=clip)
    kl = k3(logp, reference_logp)
    loss = weighted_sum(policy.loss + kl_coefficient * kl, weights)
    metrics = {
        "loss": loss.detach(),
        "policy_loss": weighted_sum(policy.loss.detach(), weights),
        "kl": weighted_sum(kl.detach(), weights),
        "ratio": weighted_sum(policy.ratio, weights),
        "clip_fraction": weighted_sum(policy.clipped.to(weights.dtype), weights),
    }
    return loss, metrics
