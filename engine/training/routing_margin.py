"""Measure by how narrow a margin each token's experts were chosen.

Top-k routing is a step function: where the last chosen and the first left-out expert have almost
the same score, two correct programs may choose differently for no more than rounding, and the
token's output then differs visibly (1.4e-2 nats were seen behind a margin of 1.8e-7). Such ties are
rare, but over a run they happen, and no kernel is to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from engine.data.packing import PackedRow
from engine.parallel.context import whole_row
from engine.platform.closing import Closing
from engine.training.forward import Row


class RoutingMargins(Closing):
    """Records the margins of forward passes that run inside its ``with`` block."""

    def __init__(self, chunks: Sequence[torch.nn.Module]) -> None:
        modules = [module for chunk in chunks for module in chunk.modules()]
        self._routers = [module for module in modules if isinstance(module, TopKRouter)]
        self._seen: dict[TopKRouter, list[Tensor]] = {router: [] for router in self._routers}
        self._hooks: list[Any] = []

    def __enter__(self) -> RoutingMargins:
        self._hooks = [router.register_forward_hook(self._see) for router in self._routers]
        return self

    def close(self) -> None:
        """Stop recording."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _see(self, router: TopKRouter, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        logits = router.gating(inputs[0]).flatten(0, -2).float()
        softmax = router.score_function == "softmax"
        scores = logits if softmax else torch.sigmoid(logits)
        if router.expert_bias is not None:
            scores = scores + router.expert_bias
        groups, kept = router.config.moe_router_num_groups, router.config.moe_router_group_topk
        by = 1 if softmax else 2  # as the routers of engine.models.router rank groups
        self._seen[router].append(margin(scores, router.topk, groups or 1, kept or 1, by=by))

    def of(self, rows: Sequence[Row]) -> list[Tensor]:
        """Return the smallest margin of each token over all layers, for the rows that were run.

        Returns:
            One float32 tensor [tokens] for each row, equal on all ranks that hold its tokens.
        """
        seen = [margins for margins in self._seen.values() if margins]
        return [
            _over_model_ranks([margins[i] for margins in seen], row.packed)
            for i, row in enumerate(rows)
        ]


def margin(scores: Tensor, topk: int, groups: int = 1, kept: int = 1, *, by: int = 2) -> Tensor:
    """Return the lead of the last choice over the first left out, of experts and of groups.

    Args:
        scores: [tokens, experts], those that the router chooses by: sigmoid(logits) + bias, or the
            logits, whose order softmax keeps.
        topk: experts chosen for each token.
        groups, kept: groups of neighbouring experts, and how many of them are chosen from.
        by: a group is worth the sum of so many of its best experts
            (``engine.models.router.group_limited_top_k``).

    Returns:
        [tokens], >= 0; infinite where nothing is left out.
    """
    if kept >= groups:
        return _gap(scores, topk)
    grouped = scores.unflatten(1, (groups, -1))
    worth = grouped.topk(min(by, grouped.shape[-1]), dim=-1).values.sum(-1)
    inside = torch.zeros_like(worth, dtype=torch.bool)
    inside.scatter_(1, worth.topk(kept, dim=-1).indices, True)
    candidates = grouped.masked_fill(~inside.unsqueeze(-1), float("-inf")).flatten(1)
    return torch.minimum(_gap(worth, kept), _gap(candidates, topk))


def _gap(values: Tensor, chosen: int) -> Tensor:
    if chosen >= values.shape[-1]:
        return torch.full_like(values[:, 0], float("inf"))
    best = values.topk(chosen + 1, dim=-1).values
    return best[:, -2] - best[:, -1]


def _over_model_ranks(layers: Sequence[Tensor], row: PackedRow) -> Tensor:
    """Join a row's margins: tokens over tensor and context ranks, the smallest over stages.

    Args:
        layers: [tokens / cp / tp] of each layer of this rank.
    """
    tensor_ranks = parallel_state.get_tensor_model_parallel_world_size()
    context_ranks = parallel_state.get_context_parallel_world_size()
    part = len(row.tokens) // context_ranks // tensor_ranks
    mine = torch.full((part,), float("inf"), device=torch.cuda.current_device())
    for layer in layers:
        mine = torch.minimum(mine, layer)
    parts = [torch.empty_like(mine) for _ in range(tensor_ranks)]
    dist.all_gather(parts, mine, group=parallel_state.get_tensor_model_parallel_group())
    whole = whole_row(torch.cat(parts), row.cu_seqlens)
    stages = parallel_state.get_pipeline_model_parallel_group()
    dist.all_reduce(whole, op=dist.ReduceOp.MIN, group=stages)
    return whole
