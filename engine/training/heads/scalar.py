"""Head of a sequence classification model with one label: one number a sample.

The number is the score layer's (linear, hidden -> 1, no bias) at the last real token that a sample
has in its row, as in transformers' ``*ForSequenceClassification``: a reward model's reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron.core.optimizer.optimizer_config import ParamKey
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from torch import Tensor
from torch.nn.functional import pad

from engine.data.packing import PackedRow, TokenIds
from engine.models.family import HuggingFaceConfig
from engine.models.gpt import GPTBackbone
from engine.models.sequence_classifier import as_sequence_classifier
from engine.parallel.context import whole_row


@dataclass(frozen=True)
class ScalarHead:
    """A head that gives one value a sample.

    Attributes:
        learning_rate_factor: > 0; the score layer learns with so many times the learning rate of
            the trunk.
        weight_decay: of the score layer; None for the trunk's.
        seed: of fresh weights, where the folder that is loaded is a language model's. They are
            drawn from N(0, ``initializer_range``^2), 0.02 where ``config.json`` has none, as
            transformers does; on the CPU and for themselves, so that every layout has the same.
    """

    learning_rate_factor: float = 1.0
    weight_decay: float | None = None
    seed: int = 0

    def model_config(self, config: HuggingFaceConfig) -> HuggingFaceConfig:
        """Return the config of the sequence classification model on the same trunk.

        Raises:
            RunError: ``config`` describes one already, with another number of labels than one.
        """
        return as_sequence_classifier(config)

    def initialise(self, model: GPTBackbone) -> None:
        """Draw the score layer's weights, on the stage that holds it."""
        if hasattr(model, "score"):
            model.score.initialise(self.seed)

    def optimizer_groups(self) -> Mapping[Any, Any]:
        """Return a group of its own for the score layer."""
        group = {"lr_mult": self.learning_rate_factor}
        if self.weight_decay is not None:
            group["weight_decay"] = self.weight_decay
        return {ParamKey(attr="is_score"): group}

    def outputs(self, model: GPTBackbone, hidden: Tensor, row: PackedRow) -> Tensor:
        """Return each sample's value.

        Args:
            model: a bare last stage of a sequence classification model.
            hidden: [T', 1, h], T' this rank's part of the row (tokens / cp / tp).

        Returns:
            Float32 [S], of the samples in the row's order, without the dummy sample of padding;
            the same on every rank of the row.
        """
        # All ranks make the same loss of the values: each gets back the gradient of its own tokens.
        mine = gather_from_sequence_parallel_region(
            model.score(hidden), tensor_parallel_output_grad=False
        )
        return whole_row(mine[:, 0, 0], row.cu_seqlens)[last_positions(row)]


def whole_text(tokens: TokenIds) -> tuple[TokenIds, TokenIds]:
    """Return the sample to pack so that a row holds all of ``tokens``, which are at least one.

    A packed sample's last token is a label only; here that is a token that nothing reads.
    """
    return tokens, (0,)


def last_positions(row: PackedRow) -> Tensor:
    """Return the position of each sample's last real token in ``row``: int64 [S]."""
    bounds = row.cu_seqlens[: len(row.response_lengths) + 1].long()
    real_before = pad((~row.padding_mask).long().cumsum(0), (1, 0))  # each position: [T + 1]
    # Padding stands behind a sample's own positions.
    return bounds[:-1] + real_before[bounds].diff() - 1
