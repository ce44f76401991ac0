"""The two passes over a chunk's logits in plain torch, one operation after the other.

``engine.training.heads.logit_kernels`` does the same in one kernel each, on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def statistics_of_shard(products: Tensor, column: Tensor, temperature: float) -> Tensor:
    """Return this rank's part of each token's softmax statistics; overwrites ``products``.

    A rank has the columns of V / tp words of the vocabulary.

    Args:
        products: [t, V / tp] float32, hidden states times output layer; over ``temperature`` they
            are the logits x.
        column: [t] int64, the target's column; outside of [0, V / tp) where it is another rank's.

    Returns:
        [4, t]: the target's logit or -inf, the peak m = max x, sum exp(x - m), and
        sum (x - m) exp(x - m).
    """
    logits = products.div_(temperature)
    here = (column >= 0) & (column < logits.shape[1])
    chosen = logits.gather(1, column.where(here, 0).unsqueeze(1)).squeeze(1)
    peak = logits.amax(1)
    shifted = logits.sub_(peak.unsqueeze(1))
    exponentials = shifted.exp()
    total = exponentials.sum(1)
    weighted = exponentials.mul_(shifted).sum(1)
    return torch.stack([chosen.where(here, -torch.inf), peak, total, weighted])


def gradient_of_products(
    products: Tensor,
    column: Tensor,
    distribution: Tensor,
    grad_chosen: Tensor | None,
    grad_entropy: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return the loss's derivative by ``products``, [t, V / tp] of ``dtype``; overwrites them.

    Args:
        products: as in :func:`statistics_of_shard`, and so are ``column`` and ``temperature``.
        distribution: [3, t], each token's peak, log sum exp(x - peak) and entropy, all words.
        grad_chosen, grad_entropy: [t], the loss's derivatives by the two results; None is zero.
    """
    logits = products.div_(temperature)
    peak, log_total, entropy = distribution
    log_p = logits.sub_(peak.unsqueeze(1)).sub_(log_total.unsqueeze(1))
    p = log_p.exp()
    if grad_entropy is None:
        factor = torch.zeros_like(peak) if grad_chosen is None else grad_chosen
        grad = p.mul_(-factor.unsqueeze(1))
    else:
        factor = log_p.add_(entropy.unsqueeze(1)).mul_(grad_entropy.unsqueeze(1))
        if grad_chosen is not None:
            factor += grad_chosen.unsqueeze(1)
        grad = p.mul_(factor).neg_()
    if grad_chosen is not None:
        here = (column >= 0) & (column < logits.shape[1])
        token = torch.arange(len(column), device=column.device)
        grad[token, column.where(here, 0)] += grad_chosen * here
    return grad.div_(temperature).to(dtype)
