"""The reference model: a frozen copy of the policy that the KL term holds it near."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.models.build import build
from engine.models.family import HuggingFaceConfig
from engine.models.shards import unwrap
from engine.training.forward import Row, log_probabilities
from engine.training.policy import Policy


class Reference:
    """A model without gradients or optimizer, laid out as the policy is.

    Attributes:
        version: weight version of the policy that it is a copy of.
    """

    def __init__(self, config: HuggingFaceConfig, layout: LayoutConfig, dtype: torch.dtype) -> None:
        self.model = build(config, layout, dtype).requires_grad_(False)
        self.version = 0

    @torch.no_grad()
    def refresh(self, policy: Policy, version: int) -> None:
        """Become a copy of ``policy`` as it is now, at weight version ``version``."""
        unwrap(self.model).load_state_dict(unwrap(policy.model).state_dict())
        self.version = version

    def log_probabilities(self, rows: Sequence[Row], temperature: float) -> list[Tensor] | None:
        """See :func:`engine.training.forward.log_probabilities`."""
        return log_probabilities(self.model, rows, temperature)
