"""The routers: softmax scores as megatron has them, and DeepSeek-V3's.

Both take marks of tokens (``engine.models.token_marks``) where megatron speaks of a padding mask,
and add the balance loss of each sample (``engine.models.balance``), weighted by megatron's
``moe_aux_loss_coeff``.

DeepSeek-V3's has sigmoid scores, a bias for balance, and experts from a few groups only: technical
report (arXiv 2412.19437), section 2.1.2, equations 12 to 16, and its node-limited routing.
megatron-core 0.16.1 has one that differs: it ranks groups by the sum of their topk / topk_group
best experts instead of their two best (moe_utils.py:554), and always normalises the chosen scores
except where one expert is chosen (moe_utils.py:724).
"""

from __future__ import annotations

import torch
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from engine.models.balance import sequence_balance
from engine.models.token_marks import padding_of


class SoftmaxRouter(TopKRouter):
    """megatron's router, with the balance loss of each sample."""

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose experts; see :meth:`SigmoidRouter.routing`."""
        weights, chosen = super().routing(logits, padding_of_all(padding_mask))
        shares = torch.softmax(logits.flatten(0, -2).float(), dim=-1)
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
            padding_mask: marks of the tokens, [..., 1 + bits] bool. Padding is routed but never
                counted.

        Returns:
            weights [tokens, experts], zero where not chosen, and the choice [tokens, experts] bool.
        """
        logits = logits.flatten(0, -2)
        scores = torch.sigmoid(logits.float())
        biased = scores if self.expert_bias is None else scores + self.expert_bias
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, self._choose(biased), True)
        weights = expert_weights(
            scores,
            chosen,
            normalise=not self.config.moe_router_pre_softmax,
            scale=self.config.moe_router_topk_scaling_factor or 1.0,
        ).type_as(logits)
        self._apply_expert_bias(chosen, padding_mask=padding_of_all(padding_mask))
        shares = scores / scores.sum(-1, keepdim=True)
        return with_balance(self, weights, shares, chosen, padding_mask), chosen

    def _choose(self, scores: Tensor) -> Tensor:
        groups, kept = self.config.moe_router_num_groups, self.config.moe_router_group_topk
        return group_limited_top_k(scores.detach(), self.topk, groups or 1, kept or 1)


def group_limited_top_k(scores: Tensor, k: int, groups: int, kept: int) -> Tensor:
    """The best experts of the best groups; a group is as good as the sum of its two best experts.

    Args:
        scores: [tokens, experts], bias included; neighbours form the groups.
        k: experts to choose for each token.
        groups: number of groups; it divides the number of experts.
        kept: groups to choose from.

    Returns:
        [tokens, k] int64, distinct experts.
    """
    if kept < groups:
        grouped = scores.unflatten(1, (groups, -1))
        worth = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
        best = worth.topk(kept, dim=-1).indices
        out = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, False)
        scores = grouped.masked_fill(out.unsqueeze(-1), float("-inf")).flatten(1)
    return scores.topk(k, dim=-1).indices


def expert_weights(scores: Tensor, chosen: Tensor, *, normalise: bool, scale: float) -> Tensor:
    """The weight of each chosen expert's output, zero for the others.

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


def padding_of_all(marks: Tensor | None) -> Tensor | None:
    """Marks [..., 1 + bits] -> padding mask [tokens]."""
    return None if marks is None else padding_of(marks).reshape(-1)


def with_balance(
    router: TopKRouter, weights: Tensor, shares: Tensor, chosen: Tensor, marks: Tensor | None
) -> Tensor:
    """``weights`` as they are; in a backward pass the balance loss's gradient goes its way, too."""
    coefficient = router.config.moe_aux_loss_coeff
    if not coefficient or marks is None or not (router.training and torch.is_grad_enabled()):
        return weights
    loss = sequence_balance(shares, chosen, marks.flatten(0, -2), router.tp_cp_group)
    balanced: Tensor = MoEAuxLossAutoScaler.apply(weights, coefficient * loss)
    return balanced
