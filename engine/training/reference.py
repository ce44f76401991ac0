"""The reference model: a frozen copy of the policy that the KL term holds it near."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.models.build import build
from engine.models.family import HuggingFaceConfig
from engine.training.forward import Row, log_probabilities
from engine.training.host_memory import HostedParameters
from engine.training.trained_model import TrainedModel
from engine.weights.full_precision import in_full_precision
from engine.weights.shards import unwrap


class Reference:
    """A model without gradients or optimizer, laid out as the policy is.

    Its parameters are plain also where the policy's are FP8: they can wait in host memory, and
    hold the policy's rounded values, which round to themselves when they are multiplied (blockwise;
    tensorwise a tensor's scale may differ by bfloat16's precision).

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
        refresh_steps: int | None = None,
    ) -> None:
        """Build it, randomly initialised.

        Args:
            offload: keep the parameters in host memory except for their passes.
            refresh_steps: steps between two renewals by :meth:`refresh_if_due`; None: never.
        """
        plain = training.model_copy(update={"fp8_parameters": False})
        self.chunks = [chunk.requires_grad_(False) for chunk in build(config, layout, plain)]
        self.version = 0
        self._refresh_steps = refresh_steps
        self._hosted = HostedParameters(self.chunks) if offload else None

    @torch.no_grad()
    def refresh(self, policy: TrainedModel, version: int) -> None:
        """Become a copy of ``policy`` as it is now, at weight version ``version``."""
        with in_full_precision(policy.chunks):
            for mine, trained in zip(self.chunks, policy.chunks, strict=True):
                mine.load_state_dict(unwrap(trained).state_dict())
        self.version = version

    def refresh_if_due(self, policy: TrainedModel, version: int) -> None:
        """Become a copy of ``policy`` if its weight version is one of every ``refresh_steps``."""
        if self._refresh_steps is not None and version % self._refresh_steps == 0:
            self.refresh(policy, version)

    def log_probabilities(self, rows: Sequence[Row], policy: TrainedModel) -> list[Tensor] | None:
        """Return the log-probability of every label of every row, scored as ``policy`` is."""
        if self._hosted is None:
            return log_probabilities(self.chunks, rows, policy.head)
        with self._hosted.on_device(torch.cuda.current_device()):
            return log_probabilities(self.chunks, rows, policy.head)
