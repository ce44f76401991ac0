"""The reference model: a frozen copy of the policy that the KL term holds it near."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.models.build import build
from engine.models.family import HuggingFaceConfig
from engine.models.shards import unwrap
from engine.training.forward import Row, log_probabilities
from engine.training.host_memory import HostedParameters
from engine.training.policy import Policy


class Reference:
    """A model without gradients or optimizer, laid out as the policy is.

    Attributes:
        chunks: this rank's model chunks.
        version: weight version of the policy that it is a copy of.
    """

    def __init__(
        self,
        config: HuggingFaceConfig,
        layout: LayoutConfig,
        training: TrainingConfig,
        *,
        offload: bool = False,
    ) -> None:
        """Build it, randomly initialised.

        Args:
            offload: keep the parameters in host memory except while they score.
        """
        self.chunks = [chunk.requires_grad_(False) for chunk in build(config, layout, training)]
        self.version = 0
        self._hosted = HostedParameters(self.chunks) if offload else None

    @torch.no_grad()
    def refresh(self, policy: Policy, version: int) -> None:
        """Become a copy of ``policy`` as it is now, at weight version ``version``."""
        for mine, trained in zip(self.chunks, policy.chunks, strict=True):
            mine.load_state_dict(unwrap(trained).state_dict())
        self.version = version

    def log_probabilities(self, rows: Sequence[Row], policy: Policy) -> list[Tensor] | None:
        """See :func:`engine.training.forward.log_probabilities`; scored as ``policy`` is."""
        if self._hosted is None:
            return log_probabilities(self.chunks, rows, policy.scorer)
        with self._hosted.visiting(torch.cuda.current_device()):
            return log_probabilities(self.chunks, rows, policy.scorer)
