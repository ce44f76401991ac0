"""Multi-token prediction: depth d predicts, at position t, the token d positions after the next.

DeepSeek-V3 technical report (arXiv 2412.19437), section 2.2, equations 21 to 23. megatron-core's
layer is used but for what is wrong in it: it passes no padding mask on, so that padding counts in
the expert bias (multi_token_prediction.py:785), and it fetches the tokens ahead sample by sample
with two messages each (multi_token_prediction.py:249).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.fp8_utils import get_fp8_context
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.multi_token_prediction import MultiTokenPredictionLayer
from megatron.core.utils import make_viewless_tensor
from torch import Tensor

from engine.models.token_metadata import padding_of, with_padding
from engine.parallel.context_slices import ahead, row_order, slice_of


@dataclass
class PackedRowParams(PackedSeqParams):
    """A packed row's bounds, and the token metadata that megatron keeps from prediction layers.

    Attributes:
        metadata: [1, tokens, 1 + bits] bool (``engine.models.token_metadata``); of this
            context-parallel slice, not split over tensor-parallel ranks.
    """

    metadata: Tensor | None = None


class MtpLayer(MultiTokenPredictionLayer):
    """The layer of one prediction depth d; ``layer_number`` is d, from 1."""

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        hidden_states: Tensor,
        packed_seq_params: PackedRowParams,
        embedding: Callable[..., Tensor],
        rotary_pos_emb: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hidden states of this depth, from those of the depth before.

        Args:
            input_ids, position_ids: [1, tokens] of the row, or of this context-parallel slice of
                it; the main model's, at every depth.
            hidden_states: [tokens, 1, hidden]; [tokens / tp, ...] under sequence parallelism.
            packed_seq_params: bounds of the row's samples, and its padding.
            embedding: the main model's.
            rotary_pos_emb: as for any transformer layer.

        Returns:
            hidden states; ``input_ids`` and ``position_ids`` as they came.
        """
        bounds, depth = packed_seq_params.cu_seqlens_q, self.layer_number
        metadata = packed_seq_params.metadata
        assert metadata is not None
        known = torch.cat([input_ids, (~padding_of(metadata)).long()])
        tokens, real = tokens_ahead(known, bounds, depth, self.cp_group)
        embedded = embedding(input_ids=tokens[None], position_ids=position_ids)
        run = partial(self._proj_and_transformer_layer, packed_seq_params=packed_seq_params)
        if self.config.recompute_granularity == "full" and self.training:
            run = partial(self._checkpointed_forward, run)
        hidden_states = make_viewless_tensor(hidden_states, requires_grad=True, keep_graph=True)
        # Where the row has no token that far ahead there is nothing to predict: it is padding.
        return (
            run(
                hidden_states,
                embedded,
                split_over_tensor_ranks(with_padding(metadata, real[None] == 0)),
                rotary_pos_emb,
            ),
            input_ids,
            position_ids,
        )

    def _checkpointed_forward(self, run: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """Recompute the depth as one unit, however many layers the trunk's units have.

        megatron's method asserts that those have one layer (multi_token_prediction.py:846).
        """
        if not self.config.fp8:
            return tensor_parallel.checkpoint(run, False, *inputs)
        from megatron.core.extensions.transformer_engine import te_checkpoint  # never run

        group = parallel_state.get_tensor_model_parallel_group()
        return te_checkpoint(
            run, False, tensor_parallel.random.get_cuda_rng_tracker, group, *inputs
        )

    def _proj_and_transformer_layer(
        self,
        hidden_states: Tensor,
        decoder_input: Tensor,
        metadata: Tensor,
        rotary_pos_emb: Tensor | None,
        packed_seq_params: PackedSeqParams,
    ) -> Tensor:
        with get_fp8_context(self.config):
            hidden_states = self._concat_embeddings(hidden_states, decoder_input)
        with get_fp8_context(self.config):
            hidden_states, _ = self.transformer_layer(
                hidden_states=hidden_states,
                attention_mask=None,
                rotary_pos_emb=rotary_pos_emb,
                packed_seq_params=packed_seq_params,
                padding_mask=metadata,
            )
        return self._postprocess(hidden_states)


def split_over_tensor_ranks(values: Tensor) -> Tensor:
    """Return this rank's tokens of [1, tokens, ...], as hidden states are split between layers."""
    ranks = parallel_state.get_tensor_model_parallel_world_size()
    rank = parallel_state.get_tensor_model_parallel_rank()
    return values.chunk(ranks, dim=1)[rank].contiguous()


def tokens_ahead(
    values: Tensor, bounds: Tensor, distance: int, context: dist.ProcessGroup | None = None
) -> Tensor:
    """Return for each position the value ``distance`` later in the same sample; else zero.

    Args:
        values: [n, tokens] int64; under context parallelism this rank's slice of the row.
        bounds: [samples + 1] int, where each sample of the whole row begins and the last one ends.
        distance: >= 0.
        context: the context-parallel group.

    Returns:
        [n, tokens], of the same positions as ``values``.
    """
    ranks, rank = (1, 0) if context is None else (context.size(), context.rank())
    tokens = ranks * values.shape[1]
    if ranks > 1:
        slices = [torch.empty_like(values) for _ in range(ranks)]
        dist.all_gather(slices, values.contiguous(), group=context)
        values = torch.cat(slices, dim=1)[:, row_order(bounds, tokens, ranks)]
    return ahead_of(slice_of(bounds, tokens, rank, ranks), values, bounds, distance)


def ahead_of(positions: Tensor, row: Tensor, bounds: Tensor, distance: int) -> Tensor:
    """Return :func:`tokens_ahead` at ``positions`` [m], from the whole ``row`` [n, tokens]."""
    later, inside = ahead(bounds, positions, distance)
    return torch.where(inside, row[:, later], 0)
