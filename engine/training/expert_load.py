"""Count how evenly the router spreads tokens over experts while the policy trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor


class ExpertLoad:
    """Counts, for every mixture-of-experts layer on this rank, the tokens sent to each expert."""

    def __init__(self, chunks: Sequence[torch.nn.Module]) -> None:
        self._counts: dict[int, Tensor] = {}
        self._counting = True
        for module in (module for chunk in chunks for module in chunk.modules()):
            if isinstance(module, TopKRouter):
                module.register_forward_hook(self._count)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing in this block."""
        self._counting = False
        try:
            yield
        finally:
            self._counting = True

    def _count(self, router: Any, inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        if not (self._counting and torch.is_grad_enabled()):
            return  # old and reference log-probabilities would count the same tokens again
        chosen = outputs[1].sum(0).float()  # routing map [tokens, experts] -> [experts]
        layer = router.layer_number - 1
        self._counts[layer] = self._counts.get(layer, torch.zeros_like(chosen)) + chosen

    def take(self, layers: int) -> dict[int, list[float]]:
        """Return the share of tokens by expert for each layer since the last call, over all ranks.

        Args:
            layers: number of layers of the whole model, prediction depths included.

        Returns:
            layer number -> share of each expert (sums to 1), equal on all ranks.
        """
        experts = max((len(count) for count in self._counts.values()), default=0)
        size = torch.tensor(experts, device=torch.cuda.current_device())
        dist.all_reduce(size, op=dist.ReduceOp.MAX)
        total = torch.zeros(layers, int(size), device=torch.cuda.current_device())
        for layer, count in self._counts.items():
            total[layer] = count
        dist.all_reduce(total)
        self._counts.clear()
        return {
            layer: (row / row.sum()).tolist() for layer, row in enumerate(total) if row.sum() > 0
        }
