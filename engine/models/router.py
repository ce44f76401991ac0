"""Routers of mixture-of-experts layers: megatron's softmax router, and DeepSeek-V3's.

Both take the metadata of tokens (``engine.models.token_metadata``) where megatron speaks of a
padding mask, and add the balance loss of each sample (``engine.models.balance``), weighted by
megatron's ``moe_aux_loss_coeff``.

DeepSeek-V3's has sigmoid scores, a bias for balance, and experts from a few groups only: technical
report (arXiv 2412.19437), section 2.1.2, equations 12 to 16, and its node-limited routing. So has
DeepSeek-V2's (arXiv 2405.04434, section 2.2.2), of softmax scores. megatron-core 0.16.1 differs: it
ranks groups by the sum of their topk / topk_group best experts (moe_utils.py:554) where V3 takes
the two best and V2 the best one, and always normalises sigmoid scores except where one expert is
chosen (moe_utils.py:724).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from engine.models.balance import sequence_balance
from engine.models.token_metadata import padding_of


class SoftmaxRouter(TopKRouter):
    """megatron's router with the balance loss of each sample and, of groups, DeepSeek-V2's choice.

    ``moe_router_pre_softmax`` says that the weights are the scores, not normalised over the chosen
    experts.
    """

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose experts; see :meth:`SigmoidRouter.routing`."""

        def shares() -> Tensor:
            return torch.softmax(logits.flatten(0, -2).float(), dim=-1)

        if (self.config.moe_router_num_groups or 1) > 1:
            scores = shares()
            chosen = best_experts(scores, self.config, by=1)
            weights = weights_of(scores, chosen, self.config).type_as(logits)
        else:
            weights, chosen = super().routing(logits, padding_of_all(padding_mask))
        return with_balance(self, weights, shares, chosen, padding_mask), chosen


class SigmoidRouter(TopKRouter):
    """megatron's router with the choice and the weights of DeepSeek-V3.

    Of the config, ``moe_router_pre_softmax`` says as in megatron's softmax router that the scores
    are used as they are (``norm_topk_prob`` false), not normalised over the chosen experts.
    """

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose experts, and count the choices of real tokens for the update of the bias.

        Args:
            logits: [..., experts].
            padding_mask: metadata of the tokens, [..., 1 + bits] bool. Padding is routed but never
                counted.

        Returns:
            weights [tokens, experts], zero where not chosen, and the choice [tokens, experts] bool.
        """
        logits = logits.flatten(0, -2)
        scores = torch.sigmoid(logits.float())
        biased = scores if self.expert_bias is None else scores + self.expert_bias
        chosen = best_experts(biased, self.config, by=2)
        weights = weights_of(scores, chosen, self.config).type_as(logits)
        self._apply_expert_bias(chosen, padding_mask=padding_of_all(padding_mask))

        def shares() -> Tensor:
            return scores / scores.sum(-1, keepdim=True)

        return with_balance(self, weights, shares, chosen, padding_mask), chosen


def best_experts(scores: Tensor, config: TransformerConfig, *, by: int) -> Tensor:
    """Return each token's experts, [tokens, experts] bool, by :func:`group_limited_top_k`.

    ``scores`` include the bias: it takes part in the choice only.
    """
    groups, kept = config.moe_router_num_groups or 1, config.moe_router_group_topk or 1
    best = group_limited_top_k(scores.detach(), config.moe_router_topk, groups, kept, by=by)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)


def weights_of(scores: Tensor, chosen: Tensor, config: TransformerConfig) -> Tensor:
    """Return :func:`expert_weights` as megatron's config describes them."""
    return expert_weights(
        scores,
        chosen,
        normalise=not config.moe_router_pre_softmax,
        scale=config.moe_router_topk_scaling_factor or 1.0,
    )


def group_limited_top_k(scores: Tensor, k: int, groups: int, kept: int, *, by: int = 2) -> Tensor:
    """Choose the best experts of the best groups, a group's score being its best experts' sum.

    Args:
        scores: [tokens, experts], bias included; neighbours form the groups.
        k: experts to choose for each token.
        groups: number of groups; it divides the number of experts.
        kept: groups to choose from.
        by: how many of its experts make a group's score.

    Returns:
        [tokens, k] int64, distinct experts.
    """
    if kept < groups:
        grouped = scores.unflatten(1, (groups, -1))
        group_scores = grouped.topk(min(by, grouped.shape[-1]), dim=-1).values.sum(-1)
        best = group_scores.topk(kept, dim=-1).indices
        out = torch.ones_like(group_scores, dtype=torch.bool).scatter(1, best, False)
        scores = grouped.masked_fill(out.unsqueeze(-1), float("-inf")).flatten(1)
    return scores.topk(k, dim=-1).indices


def expert_weights(scores: Tensor, chosen: Tensor, *, normalise: bool, scale: float) -> Tensor:
    """Return the weight of each chosen expert's output, [tokens, experts], zero for the others.

    Args:
        scores: [tokens, experts] without the bias: it takes part in the choice only.
        chosen: [tokens, experts] bool.
        normalise: whether a token's weights add up to ``scale``.
        scale: DeepSeek-V3's routed_scaling_factor.
    """
    weights = scores.masked_fill(~chosen, 0.0)
    if normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return weights * scale


def padding_of_all(metadata: Tensor | None) -> Tensor | None:
    """Return the padding mask [tokens] of the tokens' metadata [..., 1 + bits]."""
    return None if metadata is None else padding_of(metadata).reshape(-1)


def with_balance(
    router: TopKRouter,
    weights: Tensor,
    shares: Callable[[], Tensor],
    chosen: Tensor,
    metadata: Tensor | None,
) -> Tensor:
    """Return ``weights``, whose backward pass also starts that of the balance loss.

    ``shares`` is called only where there is such a loss.
    """
    coefficient = router.config.moe_aux_loss_coeff
    if not coefficient or metadata is None or not (router.training and torch.is_grad_enabled()):
        return weights
    loss = sequence_balance(shares(), chosen, metadata.flatten(0, -2), router.tp_cp_group)
    balanced: Tensor = MoEAuxLossAutoScaler.apply(weights, coefficient * loss)
    return balanced
