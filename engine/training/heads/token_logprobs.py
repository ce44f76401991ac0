"""Head of a language model: log-probability and entropy of each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from torch import Tensor

from engine.data.packing import PackedRow
from engine.errors import RunError
from engine.models.family import HuggingFaceConfig
from engine.models.gpt import GPTBackbone
from engine.models.sequence_classifier import is_sequence_classifier
from engine.parallel.context import my_slice, whole_row
from engine.training.heads.log_probability import log_probability_and_entropy


class WeightedRow(Protocol):
    """A packed row whose tokens count in the loss by their weight."""

    @property
    def packed(self) -> PackedRow:
        """The packed tokens."""
        ...

    @property
    def weights(self) -> Tensor:
        """Float32 [T], 0 for tokens that are not learned."""
        ...


class TokenOutputs(NamedTuple):
    """Log-probability and entropy at every position of a row; float32 [T], in nats."""

    logp: Tensor
    """log pi(label)."""
    entropy: Tensor
    """Of pi."""


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probability of each label, and the entropy, under pi = softmax(logits / temperature).

    The multi-token prediction head, where a model has one, belongs to this head alone.

    Attributes:
        temperature: > 0; the sampler's, so that both speak of the same distribution.
        chunk_tokens: tokens whose logits are held at once.
    """

    temperature: float
    chunk_tokens: int

    def model_config(self, config: HuggingFaceConfig) -> HuggingFaceConfig:
        """Return ``config`` itself.

        Raises:
            RunError: it describes a sequence classification model, which has no output layer.
        """
        if is_sequence_classifier(config):
            raise RunError(
                f"model: expected a language model, found {config['architectures'][0]}, which has "
                "no output layer over words"
            )
        return config

    def initialise(self, model: GPTBackbone) -> None:
        """Do nothing: the output layer comes with the trunk."""

    def optimizer_groups(self) -> Mapping[Any, Any]:
        """Return none: the output layer is trained as the trunk is."""
        return {}

    def outputs(self, model: GPTBackbone, hidden: Tensor, row: PackedRow) -> TokenOutputs:
        """Return both numbers of the row's own labels; see :meth:`score`."""
        return self.score(model, hidden, row, row.labels)

    def score(
        self, model: GPTBackbone, hidden: Tensor, row: PackedRow, labels: Tensor
    ) -> TokenOutputs:
        """Return log pi(label) and the entropy of pi at every position of ``row``.

        Args:
            model: a bare last stage; its output layer is used.
            hidden: [T', 1, h], T' this rank's part of the row (tokens / cp / tp).
            labels: [T] int64, of the whole row.

        Returns:
            Float32 [T], the same on every rank of the row.
        """
        mine = my_slice(row.cu_seqlens, len(row.tokens))
        chosen, entropy = log_probability_and_entropy(
            # Back from here, ranks sum the gradients that each has from its share of the words.
            gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=True)[:, 0],
            model.head_weight(),
            labels if mine is None else labels[mine],
            self.temperature,
            parallel_state.get_tensor_model_parallel_group(),
            self.chunk_tokens,
        )
        return TokenOutputs(whole_row(chosen, row.cu_seqlens), whole_row(entropy, row.cu_seqlens))

    def mtp_loss(self, model: GPTBackbone, depths: list[Tensor], row: WeightedRow) -> Tensor:
        """Return DeepSeek-V3's multi-token prediction loss (arXiv 2412.19437, eq. 24 and 25).

        Depth k predicts, from position t, the label of position t + k; it is weighted as the main
        loss weights that label.

        Args:
            depths: hidden states of depth 1, 2, ..., each [T', 1, h].

        Returns:
            The scalar mean over depths.
        """
        losses = []
        for depth, hidden in enumerate(depths, start=1):
            labels, weights = row.packed.ahead(depth, row.packed.labels, row.weights)
            logp = self.score(model, hidden, row.packed, labels).logp
            losses.append(-(logp * weights).sum())
        return torch.stack(losses).mean()
