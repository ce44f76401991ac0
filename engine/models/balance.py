"""The router's balance loss, computed for each sample by itself.

DeepSeek-V3 technical report (arXiv 2412.19437), section 2.1.2, equations 17 to 20. Other losses of
this kind look at all tokens of a microbatch; then a run's numbers depend on which samples happen to
share one, and so on the layout. A sample is the same everywhere.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from engine.models.token_metadata import most_samples, padding_of, sample_of


def sequence_balance(
    shares: Tensor, chosen: Tensor, metadata: Tensor, ranks_of_a_row: dist.ProcessGroup | None
) -> Tensor:
    """Return the balance loss of these tokens' samples, summed over the tokens.

    A sample of T tokens contributes T * sum_i f_i P_i, with f_i the share of its choices that fell
    on expert i, times the number of experts, and P_i the mean of ``shares`` over its tokens; so the
    sum over ranks and microbatches, divided by all tokens, is the mean over tokens. It is 1 a token
    where every expert is chosen as often.

    Args:
        shares: [tokens, experts], the router's scores, made to add up to 1 for each token.
        chosen: [tokens, experts] bool.
        metadata: [tokens, 1 + bits] bool, see ``engine.models.token_metadata``; padding does
            not count.
        ranks_of_a_row: the ranks that hold the other tokens of these samples; None where none do.

    Returns:
        This rank's tokens' part of the sum, a scalar. Its gradient reaches ``shares`` only.
    """
    real, sample = ~padding_of(metadata), sample_of(metadata)
    counted = chosen.float() * real.unsqueeze(-1)
    counts = counted.new_zeros(most_samples(metadata), chosen.shape[-1])
    counts.index_add_(0, sample, counted)
    if ranks_of_a_row is not None and dist.get_world_size(ranks_of_a_row) > 1:
        dist.all_reduce(counts, group=ranks_of_a_row)
    experts = chosen.shape[-1]
    load = experts * counts / counts.sum(-1, keepdim=True).clamp(min=1.0)
    return (shares * load[sample] * real.unsqueeze(-1)).sum()
