"""Interface of heads: from hidden states to the numbers that a loss is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from engine.data.packing import PackedRow
from engine.models.family import HuggingFaceConfig
from engine.models.gpt import GPTBackbone


class Head(Protocol):
    """The part of a model behind its hidden states, and what is particular to training it.

    A head itself holds no tensors: weights that it uses are the model's, on its last stage.
    """

    def model_config(self, config: HuggingFaceConfig) -> HuggingFaceConfig:
        """Return the ``config.json`` of the model that has this head, on the trunk of ``config``.

        Raises:
            RunError: there is no such model.
        """
        ...

    def initialise(self, model: GPTBackbone) -> None:
        """Give fresh values to weights of the head, which a folder that is loaded may lack.

        Args:
            model: a bare chunk, of any stage.
        """
        ...

    def optimizer_groups(self) -> Mapping[Any, Any]:
        """Return megatron's ``config_overrides`` for weights of the head: ParamKey -> group keys.

        ``lr_mult``, in such a group, multiplies the learning rate of each update.
        """
        ...

    def outputs(self, model: GPTBackbone, hidden: Tensor, row: PackedRow) -> Any:
        """Return the head's outputs for a packed row; its tensor and context ranks all take part.

        Args:
            model: a bare last stage.
            hidden: [T', 1, h], T' this rank's part of the row (tokens / cp / tp).

        Returns:
            Float32 tensors, the same on every rank of the row. Differentiable: every rank computes
            the same loss of them, and gets the gradient of its own part of the row.
        """
        ...
