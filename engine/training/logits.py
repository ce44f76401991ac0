"""Log-probability and entropy from the logits of a whole row; see log_probability.py for better."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _LogProbability(torch.autograd.Function):
    """One pass for both values; saves one tensor of the logits' shape for the backward pass.

    With x the logits, p = softmax(x), H = -sum p log p:
        d logp(target) / dx = onehot(target) - p
        d H / dx = -p (log p + H)
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        peak = logits.amax(-1)
        dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
        shifted = logits.float() - peak.unsqueeze(-1)  # a new tensor: the caller's stays as it is
        exponentials = shifted.exp()
        first = dist.get_rank(group) * shifted.shape[-1]
        here = (targets >= first) & (targets < first + shifted.shape[-1])
        column = torch.where(here, targets - first, 0)
        chosen = shifted.gather(-1, column.unsqueeze(-1)).squeeze(-1)
        sums = torch.stack(
            [
                exponentials.sum(-1),
                (exponentials * shifted).sum(-1),
                torch.where(here, chosen, 0.0),
            ]
        )
        dist.all_reduce(sums, group=group)
        log_total, mean = sums[0].log(), sums[1] / sums[0]
        entropy = log_total - mean
        ctx.save_for_backward(shifted.sub_(log_total.unsqueeze(-1)), here, column, entropy)
        ctx.dtype = logits.dtype
        return sums[2] - log_total, entropy

    @staticmethod
    def backward(ctx: Any, grad_chosen: Tensor, grad_entropy: Tensor) -> tuple[Tensor, None, None]:
        log_p, here, column, entropy = ctx.saved_tensors
        p = log_p.exp()
        grad = -grad_chosen.unsqueeze(-1) * p
        grad.scatter_add_(-1, column.unsqueeze(-1), (grad_chosen * here).unsqueeze(-1))
        grad -= grad_entropy.unsqueeze(-1) * p * (log_p + entropy.unsqueeze(-1))
        return grad.to(ctx.dtype), None, None


def log_probability_and_entropy(
    logits: Tensor, targets: Tensor, temperature: float, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Per token log pi(target) and the entropy of pi = softmax(logits / temperature).

    Args:
        logits: [tokens, vocabulary / tp], this tensor-parallel rank's columns.
        targets: [tokens] int64, ids in the whole vocabulary.
        temperature: > 0; the sampler's, so that both speak of the same distribution.
        group: the tensor-parallel group.

    Returns:
        log-probabilities [tokens] and entropies [tokens], float32, equal on all ranks of ``group``.
    """
    scaled = logits if temperature == 1.0 else logits / temperature
    chosen, entropy = _LogProbability.apply(scaled, targets, group)
    return chosen, entropy
