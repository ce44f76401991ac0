"""Attention over SGLang's paged key-value cache with one call per batch, for the CPU.

SGLang's own ``torch_native`` backend calls scaled-dot-product attention once per running request.
With hundreds of short requests the calls, not the arithmetic, then take most of the server's time;
here the requests of a batch are padded to common lengths and attended to together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.layers.radix_attention import AttentionType
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from torch.nn.functional import scaled_dot_product_attention

from engine.platform.sglang_cpu.padding import groups

if TYPE_CHECKING:
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch


@dataclass(frozen=True)
class DecodeGroup:
    """B requests with one new token each, and up to K keys."""

    rows: torch.Tensor | slice
    """[B] positions of the requests in the batch; a slice where it is the whole batch."""
    slots: torch.Tensor
    """[B, K] slots of their keys and values in the cache."""
    mask: torch.Tensor
    """[B, 1, 1, K] which keys are no padding."""


@dataclass(frozen=True)
class PrefillGroup:
    """B requests with up to Q new tokens each, and up to K keys, the new ones included."""

    queries: torch.Tensor
    """[B, Q] positions of the new tokens in the batch; padding repeats a request's first."""
    real: torch.Tensor
    """[B, Q] which of ``queries`` are no padding."""
    slots: torch.Tensor
    """[B, K] slots of keys and values in the cache."""
    mask: torch.Tensor | None
    """[B, 1, Q, K] which keys a query sees; None where query i sees keys 0..i (no prefix)."""


class BatchedAttention(TorchNativeAttnBackend):
    """Multi-head attention of decoder layers; whatever else a model has, ``torch_native`` does."""

    _decoding: list[DecodeGroup]
    _prefilling: list[PrefillGroup]

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Plan the groups of a batch once for all layers."""
        super().init_forward_metadata(forward_batch)
        mode = forward_batch.forward_mode
        self._decoding, self._prefilling = [], []
        if mode.is_idle() or forward_batch.encoder_lens is not None:
            return
        if mode.is_decode():
            self._decoding = self._decode_groups(forward_batch)
        else:
            self._prefilling = self._prefill_groups(forward_batch)

    def _decode_groups(self, batch: ForwardBatch) -> list[DecodeGroup]:
        lengths = batch.seq_lens.tolist()
        split = groups([1] * len(lengths), lengths)
        result = []
        for members in split:
            rows = slice(None) if len(split) == 1 else torch.tensor(members)
            slots, real = self._keys(batch, rows, max(lengths[i] for i in members))
            result.append(DecodeGroup(rows, slots, real[:, None, None]))
        return result

    def _prefill_groups(self, batch: ForwardBatch) -> list[PrefillGroup]:
        total = batch.seq_lens.tolist()
        prefix = batch.extend_prefix_lens.tolist()
        new = [t - p for t, p in zip(total, prefix, strict=True)]
        new_lengths = torch.tensor(new)
        first = new_lengths.cumsum(0) - new_lengths  # position of each request's first new token
        result = []
        for members in groups(new, total):
            rows = torch.tensor(members)
            longest = max(total[i] for i in members)
            slots, _ = self._keys(batch, rows, longest)
            step = torch.arange(max(new[i] for i in members))
            real = step < new_lengths[rows][:, None]
            queries = first[rows][:, None] + step * real
            mask = None
            if any(prefix[i] for i in members):
                position = batch.extend_prefix_lens[rows][:, None] + step
                mask = (torch.arange(longest) <= position[..., None])[:, None]
            result.append(PrefillGroup(queries, real, slots, mask))
        return result

    def _keys(
        self, batch: ForwardBatch, rows: torch.Tensor | slice, longest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cache slots [B, K] of the requests and which of them are no padding."""
        table = self.req_to_token_pool.req_to_token[:, :longest]
        slots = table.index_select(0, batch.req_pool_indices[rows]).to(torch.int64)
        real = torch.arange(longest) < batch.seq_lens[rows][:, None]
        # Padding repeats the request's own first slot: a stale one may hold a NaN, and 0 x NaN
        # is NaN.
        return torch.where(real, slots, slots[:, :1]), real

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        """Attend with one new token per request; q [B, heads * dim] -> [B, heads * v_dim]."""
        if not (self._decoding and _is_plain(layer)):
            return super().forward_decode(q, k, v, layer, forward_batch, save_kv_cache)
        self._save(k, v, layer, forward_batch, save_kv_cache)
        kv_heads = layer.tp_k_head_num
        # The query heads that share a key head become its query axis.
        q = q.reshape(-1, kv_heads, layer.tp_q_head_num // kv_heads, layer.qk_head_dim)
        out = q.new_empty(*q.shape[:-1], layer.v_head_dim)
        for group in self._decoding:
            keys, values = self._cached(layer, group.slots, q.dtype)
            out[group.rows] = scaled_dot_product_attention(
                q[group.rows], keys, values, attn_mask=group.mask, scale=layer.scaling
            )
        return out.view(out.shape[0], -1)

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        """Attend with all new tokens; q [tokens, heads * dim] -> [tokens, heads * v_dim]."""
        if not (self._prefilling and _is_plain(layer)):
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        self._save(k, v, layer, forward_batch, save_kv_cache)
        heads = layer.tp_q_head_num
        q = q.reshape(-1, heads, layer.qk_head_dim)
        out = q.new_empty(q.shape[0], heads, layer.v_head_dim)
        for group in self._prefilling:
            keys, values = self._cached(layer, group.slots, q.dtype)
            attended = scaled_dot_product_attention(
                q[group.queries].transpose(1, 2),
                keys,
                values,
                attn_mask=group.mask,
                is_causal=group.mask is None,
                scale=layer.scaling,
                enable_gqa=heads != layer.tp_k_head_num,
            )
            out[group.queries[group.real]] = attended.transpose(1, 2)[group.real]
        return out.view(out.shape[0], -1)

    def _save(
        self,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: RadixAttention,
        batch: ForwardBatch,
        save_kv_cache: bool,
    ) -> None:
        if save_kv_cache and k is not None:
            where = KVWriteLoc(batch.out_cache_loc, self.swa_out_cache_loc)
            self.token_to_kv_pool.set_kv_buffer(layer, where, k, v)

    def _cached(
        self, layer: RadixAttention, slots: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values [B, kv heads, K, dim] of the slots [B, K]."""

        def gather(buffer: torch.Tensor) -> torch.Tensor:
            found = buffer.index_select(0, slots.view(-1))
            return found.view(*slots.shape, *buffer.shape[1:]).transpose(1, 2).to(dtype)

        pool = self.token_to_kv_pool
        return (
            gather(pool.get_key_buffer(layer.layer_id)),
            gather(pool.get_value_buffer(layer.layer_id)),
        )


def _is_plain(layer: RadixAttention) -> bool:
    return (
        layer.attn_type == AttentionType.DECODER
        and not layer.is_cross_attention
        and layer.sliding_window_size == -1
    )
