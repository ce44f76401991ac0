"""Core attention over packed rows with torch's scaled dot product; no token attends other samples.

A row holds many samples one after another (``qkv_format="thd"``). One call per sample would spend
its time in Python, one call per row on masked-out scores; so samples of similar length are padded
to a batch: at most a factor of two is wasted, and a row takes a handful of calls.

Under context parallelism each rank holds two chunks of every sample
(``engine.parallel.context_slices``). It keeps its queries, gathers the others' keys and values, and
masks by position.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from engine.parallel.context_slices import row_order, slice_of


class PackedAttention(MegatronModule):
    """Causal attention within each sample of a packed row.

    Grouped-query heads are allowed, and values whose size is not the keys' (MLA).
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        softmax_scale: float | None = None,
        k_channels: int | None = None,
        pg_collection: ProcessGroupCollection | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale or 1.0 / math.sqrt(k_channels or config.kv_channels)
        self.context = None if pg_collection is None else pg_collection.cp

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
        **_: Any,
    ) -> Tensor:
        """Attend within samples.

        Args:
            query: [tokens, heads, d]; key: [tokens, groups, d]; value: [tokens, groups, d_v]; under
                context parallelism the tokens of this rank's slice.
            attention_mask: unused; the rows' own boundaries are the mask.
            packed_seq_params: ``cu_seqlens_q`` [samples + 1] bounds the samples of the whole row.

        Returns:
            [tokens, heads * d_v].
        """
        if packed_seq_params is None:
            raise ValueError("PackedAttention takes packed rows only (packed_seq_params)")
        bounds = packed_seq_params.cu_seqlens_q
        if self.context is None or self.context.size() == 1:
            return attend_within_samples(query, key, value, bounds, self.scale)
        ranks, rank = self.context.size(), self.context.rank()
        tokens = ranks * len(query)
        both = torch.cat([key, value], -1)  # one message for the two
        both = gather_from_sequence_parallel_region(both, group=self.context)
        key, value = both[row_order(bounds, tokens, ranks)].split(
            [key.shape[-1], value.shape[-1]], -1
        )
        held = slice_of(bounds, tokens, rank, ranks)
        return attend_from_a_slice(query, key, value, bounds, held, self.scale)


def attend_within_samples(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float
) -> Tensor:
    """Return causal attention of a packed row, of each token to its own sample only.

    Args:
        query: [tokens, heads, d]; key: [tokens, groups, d]; value: [tokens, groups, d_v].
        bounds: [samples + 1] int, where each sample begins and the last one ends.
        scale: the scores are multiplied by it.

    Returns:
        [tokens, heads * d_v].
    """
    order, outputs = [], []
    for positions, valid in length_buckets(bounds):
        out = _attend(query[positions], key[positions], value[positions], scale, mask=None)
        outputs.append(out[valid])  # [tokens of the bucket, heads, d_v]
        order.append(positions[valid])
    return _in_order(outputs, order)


def attend_from_a_slice(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, held: Tensor, scale: float
) -> Tensor:
    """Return :func:`attend_within_samples` at some positions of the row.

    Args:
        query: [tokens / ranks, heads, d], of the positions in ``held``.
        key: [tokens, groups, d]; value: [tokens, groups, d_v]; of the whole row.
        bounds: [samples + 1] int, of the whole row.
        held: [tokens / ranks] int64, the same share of every sample, sample after sample.
        scale: the scores are multiplied by it.

    Returns:
        [tokens / ranks, heads * d_v].
    """
    own_bounds = bounds * len(query) // len(key)
    order, outputs = [], []
    for samples in similar_lengths(own_bounds):
        own, valid = padded_positions(own_bounds, samples)  # [b, s / ranks]
        seen, real = padded_positions(bounds, samples)  # [b, s]
        mask = real[:, None] & (seen[:, None] <= held[own][:, :, None])
        out = _attend(query[own], key[seen], value[seen], scale, mask[:, None])
        outputs.append(out[valid])
        order.append(own[valid])
    return _in_order(outputs, order)


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Attend: [b, s, heads, d] each -> [b, s, heads, d_v]; causal where there is no mask."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    grouped = q.shape[1] != k.shape[1]
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def _in_order(outputs: list[Tensor], order: list[Tensor]) -> Tensor:
    return torch.cat(outputs)[torch.cat(order).argsort()].flatten(1)


def length_buckets(bounds: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Group a row's samples so that each is padded to less than twice its length.

    Args:
        bounds: [samples + 1] int, where each sample begins and the last one ends.

    Returns:
        :func:`padded_positions` of each bucket.
    """
    return [padded_positions(bounds, samples) for samples in similar_lengths(bounds)]


def similar_lengths(bounds: Tensor) -> list[list[int]]:
    """Group the samples whose lengths differ by less than a factor of two; no empty ones."""
    buckets: dict[int, list[int]] = defaultdict(list)
    for sample, length in enumerate(bounds.diff().tolist()):
        if length:
            buckets[(length - 1).bit_length()].append(sample)
    return list(buckets.values())


def padded_positions(bounds: Tensor, samples: list[int]) -> tuple[Tensor, Tensor]:
    """Return the positions of some samples, padded to the longest of them.

    Returns:
        ``positions`` [b, s] int64, indices into the row (padding repeats the sample's last token),
        and ``valid`` [b, s] bool.
    """
    index = torch.tensor(samples, device=bounds.device)
    own, start = bounds.diff().long()[index][:, None], bounds.long()[index][:, None]
    steps = torch.arange(int(own.max()), device=bounds.device)[None]
    return start + torch.minimum(steps, own - 1), steps < own
