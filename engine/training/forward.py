"""Run packed rows through the model, pipeline stages included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from engine.data.packing import PackedRow
from engine.models.mtp import PackedRowParams
from engine.models.token_metadata import token_metadata
from engine.parallel.context import my_slice
from engine.training.heads.head import Head
from engine.weights.shards import unwrap


class Row(Protocol):
    """One microbatch: anything that carries a packed row."""

    @property
    def packed(self) -> PackedRow:
        """The packed tokens."""
        ...


def hidden_states(chunk: torch.nn.Module, row: PackedRow) -> Tensor:
    """Run one model chunk over this rank's part of a packed row.

    Returns:
        [T', 1, h], T' = tokens / cp / tp: the activations for the next stage; of the last stage
        the hidden states that ``GPTBackbone`` returns.
    """
    mine = my_slice(row.cu_seqlens, len(row.tokens))
    metadata = token_metadata(row.padding_mask, row.sample_numbers(), len(row.cu_seqlens) - 1)
    tokens, positions, metadata = (
        values[None] if mine is None else values[mine][None]
        for values in (row.tokens, row.position_ids, metadata)
    )
    packed = PackedRowParams(
        qkv_format="thd",
        cu_seqlens_q=row.cu_seqlens,
        cu_seqlens_kv=row.cu_seqlens,
        max_seqlen_q=row.longest,
        max_seqlen_kv=row.longest,
        metadata=metadata,
    )
    # What megatron hands down to the routers under this name: see engine.models.token_metadata.
    out: Tensor = chunk(tokens, positions, None, packed_seq_params=packed, padding_mask=metadata)
    return out


def run_schedule(
    chunks: Sequence[torch.nn.Module],
    rows: Sequence[Row],
    step: Callable[[Iterator[Any], torch.nn.Module], tuple[Tensor, Callable[..., Any]]],
    *,
    forward_only: bool,
) -> list[Any]:
    """Run megatron's schedule for this layout (1F1B between stages); a row is a microbatch.

    Args:
        chunks: this rank's model chunks; several run interleaved.
        step: takes the rows that are left and a chunk; returns the chunk's activations, and a
            function that megatron calls with them on the last stage.

    Returns:
        The results of that function for each row, on the last stage; [] elsewhere.

    Raises:
        ValueError: rows of an interleaved pipeline differ in length; packed to
            ``engine.config.training_layout.row_multiple`` they do not.
    """
    lengths = {len(row.packed.tokens) for row in rows}
    if len(chunks) > 1 and len(lengths) > 1:
        raise ValueError(f"rows of an interleaved pipeline must be equally long, found {lengths}")
    for chunk in chunks:
        chunk.train(not forward_only)
    with torch.set_grad_enabled(not forward_only):
        results: list[Any] = get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=[iter(rows) for _ in chunks],
            model=list(chunks),
            num_microbatches=len(rows),
            seq_length=max(lengths),
            micro_batch_size=1,
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )
    return results


def outputs(chunks: Sequence[torch.nn.Module], rows: Sequence[Row], head: Head) -> list[Any] | None:
    """Return the outputs of ``head`` for every row, without gradients.

    Returns:
        For each row what ``head.outputs`` returns, on the last pipeline stage; None on the others.
    """

    def step(pending: Iterator[Row], chunk: torch.nn.Module) -> tuple[Tensor, Callable[..., Any]]:
        row = next(pending).packed

        def collect(hidden: Tensor, non_loss_data: bool) -> Any:
            return head.outputs(unwrap(chunk), hidden, row)

        return hidden_states(chunk, row), collect

    collected = run_schedule(chunks, rows, step, forward_only=True)
    return collected if parallel_state.is_pipeline_last_stage() else None


def log_probabilities(
    chunks: Sequence[torch.nn.Module], rows: Sequence[Row], head: Head
) -> list[Tensor] | None:
    """Return the log-probability of every label of every row, without gradients.

    Args:
        head: a ``TokenLogProbs``.

    Returns:
        One float32 tensor [tokens] for each row on the last pipeline stage, None on the others.
    """
    found = outputs(chunks, rows, head)
    return None if found is None else [row.logp for row in found]
