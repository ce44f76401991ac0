"""Core attention over packed rows with torch's scaled dot product; no token attends other samples.

A row holds many samples one after another (``qkv_format="thd"``). One call per sample would spend
its time in Python, one call per row on masked-out scores; so samples of similar length are padded
to a batch: at most a factor of two is wasted, and a row takes a handful of calls.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class PackedAttention(MegatronModule):
    """Causal attention within each sample of a packed row; grouped-query heads are allowed."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        softmax_scale: float | None = None,
        k_channels: int | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale or 1.0 / math.sqrt(k_channels or config.kv_channels)

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
            query: [tokens, heads, d]; key, value: [tokens, groups, d or d_v].
            attention_mask: unused; the rows' own boundaries are the mask.
            packed_seq_params: ``cu_seqlens_q`` [samples + 1] bounds the samples.

        Returns:
            [tokens, heads * d_v].
        """
        if packed_seq_params is None:
            raise ValueError("PackedAttention takes packed rows only (packed_seq_params)")
        bounds = packed_seq_params.cu_seqlens_q
        return attend_within_samples(query, key, value, bounds, self.scale)


def attend_within_samples(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float
) -> Tensor:
    """Causal attention of a packed row, each token to its own sample only.

    Args:
        query: [tokens, heads, d]; key, value: [tokens, groups, d or d_v].
        bounds: [samples + 1] int, where each sample begins and the last one ends.
        scale: the scores are multiplied by it.

    Returns:
        [tokens, heads * d_v].
    """
    order, outputs = [], []
    for positions, valid in length_buckets(bounds):
        q, k, v = (x[positions].transpose(1, 2) for x in (query, key, value))  # [b, h, s, d]
        out = scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2)[valid])  # [tokens of the bucket, h, d_v]
        order.append(positions[valid])
    back = torch.cat(order).argsort()
    return torch.cat(outputs)[back].flatten(1)


def length_buckets(bounds: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Group a row's samples so that each is padded to less than twice its length.

    Args:
        bounds: [samples + 1] int, where each sample begins and the last one ends.

    Returns:
        For each bucket ``positions`` [b, s] int64, indices into the row (padding repeats the
        sample's last token), and ``valid`` [b, s] bool.
    """
    starts, lengths = bounds[:-1].long(), bounds.diff().long()
    buckets: dict[int, list[int]] = defaultdict(list)
    for sample, length in enumerate(lengths.tolist()):
        if length:
            buckets[(length - 1).bit_length()].append(sample)
    grouped = []
    for samples in buckets.values():
        index = torch.tensor(samples, device=bounds.device)
        own, start = lengths[index][:, None], starts[index][:, None]
        steps = torch.arange(int(own.max()), device=bounds.device)[None]
        grouped.append((start + torch.minimum(steps, own - 1), steps < own))
    return grouped
