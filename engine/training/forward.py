"""Running packed rows through the model, pipeline stages included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from engine.data.packing import PackedRow
from engine.models.shards import unwrap
from engine.training.logits import log_probability_and_entropy


class Row(Protocol):
    """Anything that carries a packed row: what a microbatch is made of."""

    @property
    def packed(self) -> PackedRow:
        """The packed tokens."""
        ...


def model_logits(model: torch.nn.Module, row: PackedRow) -> Tensor:
    """Logits of one packed row on the last stage, [tokens, vocabulary / tp]; activations before."""
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=row.cu_seqlens,
        cu_seqlens_kv=row.cu_seqlens,
        max_seqlen_q=row.longest,
        max_seqlen_kv=row.longest,
    )
    out: Tensor = model(
        row.tokens[None],
        row.position_ids[None],
        None,
        packed_seq_params=packed,
        padding_mask=_padding_mask(model, row),
    )
    return out[0] if unwrap(model).post_process else out


def _padding_mask(model: torch.nn.Module, row: PackedRow) -> Tensor:
    """[1, tokens] bool, True on padding, as this stage needs it.

    gpt_model.py:300-317 of megatron-core 0.16.1 splits the mask over tensor-parallel ranks on the
    first stage only; later stages get it split.
    """
    mask = row.padding_mask[None]
    bare = unwrap(model)
    if bare.config.sequence_parallel and not bare.pre_process:
        ranks = parallel_state.get_tensor_model_parallel_world_size()
        mask = mask.chunk(ranks, 1)[parallel_state.get_tensor_model_parallel_rank()].contiguous()
    return mask


def run_schedule(
    model: torch.nn.Module,
    rows: Sequence[Row],
    step: Callable[[Iterator[Any], torch.nn.Module], tuple[Tensor, Callable[..., Any]]],
    *,
    forward_only: bool,
) -> list[Any]:
    """megatron's schedule for this layout (1F1B between stages) over ``rows``, one a microbatch.

    Returns:
        What ``step``'s second result returned for each row, on the last stage; [] elsewhere.
    """
    model.train(not forward_only)
    with torch.set_grad_enabled(not forward_only):
        results: list[Any] = get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=iter(rows),
            model=model,
            num_microbatches=len(rows),
            seq_length=max(len(row.packed.tokens) for row in rows),
            micro_batch_size=1,
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )
    return results


def log_probabilities(
    model: torch.nn.Module, rows: Sequence[Row], temperature: float
) -> list[Tensor] | None:
    """Log-probability of every label of every row, without gradients.

    Returns:
        One float32 tensor [tokens] for each row on the last pipeline stage, None on the others.
    """

    def step(
        pending: Iterator[Row], model: torch.nn.Module
    ) -> tuple[Tensor, Callable[..., Tensor]]:
        row = next(pending).packed

        def collect(logits: Tensor, non_loss_data: bool) -> Tensor:
            group = parallel_state.get_tensor_model_parallel_group()
            return log_probability_and_entropy(logits, row.labels, temperature, group)[0]

        return model_logits(model, row), collect

    collected = run_schedule(model, rows, step, forward_only=True)
    return collected if parallel_state.is_pipeline_last_stage() else None
