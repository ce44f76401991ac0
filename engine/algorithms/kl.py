"""Estimate KL(policy || reference) at each token from the sampled token alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from engine.algorithms.policy_loss import LARGEST_LOG_RATIO

if TYPE_CHECKING:
    from torch import Tensor

KlCoefficient = Annotated[
    float,
    Field(
        ge=0,
        description="beta: weight of the KL divergence from the reference model; with 0 no "
        "reference model is built",
    ),
]
"""An option that all algorithms have: weight of :func:`k3` beside the policy's loss."""


def k3(logp: Tensor, reference_logp: Tensor) -> Tensor:
    """Return pi_ref / pi - log(pi_ref / pi) - 1 for each token, in nats.

    DeepSeekMath, arXiv 2402.03300, eq. 4; the name is John Schulman's ("Approximating KL
    Divergence", 2020). For tokens drawn from the policy its expectation is KL(policy || reference);
    unlike log(pi / pi_ref) it is never negative. Its gradient by ``logp`` is 1 - pi_ref / pi.

    From the second minibatch of a rollout on it is a biased estimate: the tokens were drawn from an
    older policy, and no importance weight makes up for it.

    Above a log(pi_ref / pi) of 20 the exponential, which float32 cannot hold from 89 on, goes on
    as its tangent there: the estimate stays convex, and a policy that has lost a token is still
    pulled back to the reference, with the gradient of 20 nats, 4.9e8. (To clamp the log-ratio, as
    is widely done, takes the pull away where it is needed most.) On the other side nothing
    overflows, and nothing is limited.

    Args:
        logp: log-probabilities under the policy; gets a gradient.
        reference_logp: the same under the reference model, of equal shape; gets none.
    """
    log_ratio = reference_logp.detach() - logp
    bounded = log_ratio.clamp(max=LARGEST_LOG_RATIO)
    # expm1: where both models agree, exp(x) - 1 would round the whole estimate away.
    beyond = (log_ratio - LARGEST_LOG_RATIO).relu()
    return bounded.expm1() - bounded + math.expm1(LARGEST_LOG_RATIO) * beyond
