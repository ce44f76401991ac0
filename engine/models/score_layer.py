"""Last layer of a sequence classification model with one label: hidden state -> one number."""

from __future__ import annotations

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

INITIALIZER_RANGE = 0.02
"""Standard deviation of fresh weights where ``config.json`` has no ``initializer_range``."""


class ScoreLayer(torch.nn.Module):
    """A linear layer hidden -> 1 without bias, whole on every tensor-parallel rank.

    Attributes:
        weight: [1, h], of the model's dtype. Under sequence parallelism each rank scores its own
            tokens, and megatron sums the gradients that ranks have from theirs.
    """

    def __init__(self, config: TransformerConfig, deviation: float) -> None:
        """Build it on this rank's device with fresh weights.

        Args:
            deviation: standard deviation of fresh weights.
        """
        super().__init__()
        self._deviation = deviation
        self.weight = torch.nn.Parameter(
            torch.empty(
                (1, config.hidden_size),
                dtype=config.params_dtype,
                device=torch.cuda.current_device(),
            )
        )
        self.weight.sequence_parallel = config.sequence_parallel
        self.weight.is_score = True  # what its optimizer group is told by
        self.initialise(seed=0)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw fresh weights as transformers does, from N(0, deviation^2).

        They depend on ``seed`` alone, not on the layout nor on what else was drawn before.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.weight.shape, generator=generator)
        self.weight.copy_(self._deviation * drawn)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., h] -> [..., 1] float32."""
        return torch.nn.functional.linear(hidden.float(), self.weight.float())
