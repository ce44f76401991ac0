"""Experts of a rank computed by two grouped matrix products instead of two for each expert.

Parameters, their names and their places in checkpoints are those of megatron's SequentialMLP.
"""

from __future__ import annotations

import torch
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import SequentialMLP
from torch import Tensor
from torch.nn.functional import grouped_mm


class ExpertColumns(ColumnParallelLinear):
    """The gate and up projections of one expert; multiplied elsewhere."""

    def forward(self) -> Tensor:
        """Return the weight, [2 f / etp, h]; a forward pass, so that DDP has fetched it."""
        return self.weight


class ExpertRows(RowParallelLinear):
    """The down projection of one expert; multiplied elsewhere."""

    def forward(self) -> Tensor:
        """Return the weight, [h, f / etp]; a forward pass, so that DDP has fetched it."""
        return self.weight


class GroupedExperts(SequentialMLP):
    """Gated experts without bias over torch's ``grouped_mm``."""

    def forward(
        self,
        permuted_local_hidden_states: Tensor,
        tokens_per_expert: Tensor,
        permuted_probs: Tensor,
    ) -> tuple[Tensor, None]:
        """Compute each expert on its rows.

        Args:
            permuted_local_hidden_states: [n, h], the first expert's rows first.
            tokens_per_expert: [experts of this rank] int64, adds up to n.
            permuted_probs: [n], weight of each row's output.

        Returns:
            [n, h]; under expert tensor parallelism this rank's part of the sum. No bias.
        """
        rows = permuted_local_hidden_states
        ends = tokens_per_expert.to(rows.device).cumsum(0).int()
        columns = torch.stack([expert.linear_fc1() for expert in self.local_experts])
        gate, up = grouped_mm(rows, columns.transpose(1, 2), offs=ends).chunk(2, -1)
        inner = self.config.activation_func(gate) * up * permuted_probs.unsqueeze(-1)
        down = torch.stack([expert.linear_fc2() for expert in self.local_experts])
        return grouped_mm(inner.to(rows.dtype), down.transpose(1, 2), offs=ends), None


class GroupedSpecProvider(LocalSpecProvider):
    """megatron's local modules, with grouped experts."""

    def grouped_mlp_modules(
        self, moe_use_grouped_gemm: bool, moe_use_legacy_grouped_gemm: bool
    ) -> tuple[type, MLPSubmodules]:
        """Return the experts' module and its submodules."""
        return GroupedExperts, MLPSubmodules(linear_fc1=ExpertColumns, linear_fc2=ExpertRows)
