"""Compute log-probability and entropy of each token in chunks, without a row's whole logits.

The logits of a row are its largest tensor by far: 32,768 tokens x 151,936 words x 4 bytes are
20 GB. Here they exist for ``chunk_tokens`` tokens and this rank's words at a time: the forward pass
keeps four numbers per token of each chunk and drops its logits, the backward pass computes them
again. That costs one more matrix product per chunk, a third more work than the three of a plain
output layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from engine.training.heads import logit_passes


def log_probability_and_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    group: dist.ProcessGroup,
    chunk_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Return log pi(target) and the entropy of pi = softmax(hidden @ weight^T / temperature).

    Logits and all that follows them are float32. With bfloat16 inputs the products are summed in
    float32 and never rounded to bfloat16, as a plain output layer would round them; on CUDA the
    gradients of the logits are rounded to bfloat16 before they are multiplied with ``weight`` and
    ``hidden`` (the CPU keeps float32, through a float32 copy of both). Gradients are summed over
    chunks in float32 and rounded once, to the type of what they belong to.

    Without gradients (``torch.no_grad``) nothing outlives a chunk but its four numbers per token.

    Args:
        hidden: [T, h] float32 or bfloat16, what the output layer reads: the whole row on every
            tensor-parallel rank. Its gradient is this rank's part, that of its own words: the sum
            over ``group`` belongs to the backward pass of the region that brought the row here
            (megatron: ``copy_to_tensor_model_parallel_region``, or with sequence parallelism
            ``gather_from_sequence_parallel_region(..., tensor_parallel_output_grad=True)``).
        weight: [V / tp, h], type of ``hidden``: this rank's rows of the output layer or of the tied
            embedding; rank r has words r V / tp and following.
        targets: [T] int64, ids in the whole vocabulary. An id outside of it has log-probability
            -inf.
        temperature: > 0; the sampler's, so that both speak of the same distribution.
        group: the tensor-parallel group; every rank of it takes part, once per row.
        chunk_tokens: >= 1; tokens whose logits exist at the same time. The memory is two float32
            tensors [chunk_tokens, V / tp]; values change by rounding only.

    Returns:
        log-probabilities [T] and entropies [T] in nats, float32, equal on all ranks of ``group``.

    Raises:
        ValueError: the shapes, types or numbers do not fit together.
    """
    _check(hidden, weight, targets, temperature, chunk_tokens)
    chosen, entropy = _LogProbabilityAndEntropy.apply(
        hidden, weight, targets, temperature, group, chunk_tokens
    )
    return chosen, entropy


def _check(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk_tokens: int
) -> None:
    if (
        hidden.dim() != 2
        or weight.shape[1:] != hidden.shape[1:]
        or targets.shape != hidden[:, 0].shape
    ):
        raise ValueError(
            "expected hidden [T, h], weight [V / tp, h] and targets [T], found "
            f"{[*hidden.shape]}, {[*weight.shape]} and {[*targets.shape]}"
        )
    if hidden.dtype != weight.dtype or hidden.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            "expected hidden and weight both float32 or both bfloat16, found "
            f"{hidden.dtype} and {weight.dtype}"
        )
    if temperature <= 0 or chunk_tokens < 1:
        raise ValueError(
            f"expected temperature > 0 and chunk_tokens >= 1, found {temperature}, {chunk_tokens}"
        )


class _LogProbabilityAndEntropy(torch.autograd.Function):
    """Two passes over the chunks of a row: statistics forward, gradients backward.

    With x the logits, p = softmax(x), H = -sum p log p:
        d logp(target) / dx = onehot(target) - p
        d H / dx = -p (log p + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        group: dist.ProcessGroup,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor]:
        column = targets - dist.get_rank(group) * len(weight)
        statistics = hidden.new_empty(4, len(hidden), dtype=torch.float32)
        rows, words = _operands(hidden, weight)
        passes = _passes(hidden.device)
        for chunk in _chunks(len(hidden), chunk_tokens):
            logits = _product(rows[chunk], words.t())
            statistics[:, chunk] = passes.statistics_of_shard(logits, column[chunk], temperature)
            del logits  # before the next chunk's are made
        chosen, peak, log_total, entropy = _combine(statistics, group)
        distribution = torch.stack([peak, log_total, entropy])
        ctx.save_for_backward(hidden, weight, column, distribution)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        ctx.set_materialize_grads(False)
        return chosen - peak - log_total, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_chosen: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, column, distribution = ctx.saved_tensors
        rows, words = _operands(hidden, weight)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = (
            torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        )
        passes = _passes(hidden.device)
        for chunk in _chunks(len(hidden), ctx.chunk_tokens):
            logits = _product(rows[chunk], words.t())
            grad = passes.gradient_of_products(
                logits,
                column[chunk],
                distribution[:, chunk],
                None if grad_chosen is None else grad_chosen[chunk],
                None if grad_entropy is None else grad_entropy[chunk],
                ctx.temperature,
                rows.dtype,
            )
            del logits
            if grad_hidden is not None:
                grad_hidden[chunk] = grad @ words
            if grad_weight is not None:
                _add_product(grad_weight, grad.t(), rows[chunk])
            del grad
        return grad_hidden, grad_weight, None, None, None, None


def _combine(statistics: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, ...]:
    """Combine the shards' statistics [4, T]: target's logit, peak, log sum exp(x - peak), entropy.

    Two collectives for a whole row. A shard's sums are about its own peak m; about the common peak
    M, with d = m - M, they are e^d sum exp(x - m) and e^d (sum (x - m) exp(x - m) + d sum ...).
    """
    own_peak = statistics[1].clone()
    dist.all_reduce(statistics[:2], op=dist.ReduceOp.MAX, group=group)
    chosen, peak, total, weighted = statistics
    down = own_peak - peak
    weighted.addcmul_(total, down)
    statistics[2:] *= down.exp()
    dist.all_reduce(statistics[2:], group=group)
    log_total = total.log()
    return chosen, peak, log_total, log_total - weighted / total


def _passes(device: torch.device) -> Any:
    """Return the module of the two functions that go over a chunk's logits on ``device``."""
    if device.type == "cuda":
        from engine.training.heads import (
            logit_kernels,  # triton comes with torch's CUDA build alone
        )

        return logit_kernels
    return logit_passes


def _chunks(tokens: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, tokens, size))


def _operands(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the operands: CUDA multiplies bfloat16 into float32, for the CPU they are float32."""
    return (hidden, weight) if hidden.device.type == "cuda" else (hidden.float(), weight.float())


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices of float32 or (CUDA) bfloat16 into a new float32 one."""
    return a @ b if a.dtype == torch.float32 else torch.mm(a, b, out_dtype=torch.float32)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a product like :func:`_product`'s to ``total``, float32, in place."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    else:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
