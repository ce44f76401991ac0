"""The trainer's side of served.py: the policy beside a server, and what it says of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.benchmarks import rank_imports  # isort: skip  (readies the platform)

import torch
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import row_multiple
from engine.data.packing import PackedRow, pack
from engine.training.forward import log_probabilities
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load

ONE = LayoutConfig(processes=1)
LIMIT = 1 << 30
"""Bytes of a bucket of weights."""


@dataclass(frozen=True)
class Row:
    """What a pass over the policy needs to know of a row."""

    packed: PackedRow


class Trainer:
    """A policy of one rank that starts with a folder's weights."""

    def __init__(self, source: Path, dtype: str, tokens: int) -> None:
        """Build the policy and load its weights.

        Args:
            source: a Hugging Face folder.
            dtype: of the weights, ``float32`` or ``bfloat16``.
            tokens: most of all samples that are asked about together.
        """
        folder = HuggingFaceFolder(source)
        self._training = TrainingConfig.model_validate(
            {"dtype": dtype, "tokens_per_microbatch": tokens}
        )
        head = TokenLogProbs(1.0, self._training.logits_chunk_tokens)
        optimizer = OptimizerConfig(lr=1e-5)
        self.policy = TrainedModel(folder.config, ONE, optimizer, self._training, head)
        self.policy.parameters_changed(load(self.policy.chunks, folder))
        self.exporter = Exporter(self.policy.chunks, folder)

    def log_probabilities(self, samples: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        """Return those of every token of the responses, in order, float64 on the host.

        Args:
            samples: prompts and responses.
        """
        row = pack(list(samples), row_multiple=row_multiple(self._training, ONE))
        row = row.to(torch.cuda.current_device())
        found = log_probabilities(self.policy.chunks, [Row(row)], self.policy.head)
        assert found is not None
        return found[0][row.response_mask].cpu().double()

    @torch.no_grad()
    def change(self) -> None:
        """Multiply every weight by a random factor near 1, far enough to change probabilities."""
        for chunk in self.policy.chunks:
            for parameter in chunk.parameters():
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
        self.policy.parameters_changed()

    def named_tensors(self) -> list[tuple[str, Tensor]]:
        """All weights under Hugging Face names, on the trainer's device; the model is small."""
        buckets = self.exporter.stream.buckets(LIMIT, torch.cuda.current_device())
        return [pair for _, pairs in buckets for pair in pairs]


@contextmanager
def trainer(source: Path, dtype: str, tokens: int) -> Iterator[Trainer]:
    """A trainer, and the process groups that it lives in; see :class:`Trainer`."""
    store = rank_imports.PrefixStore("served", torch.distributed.HashStore())
    with rank_imports.process_groups(ONE, 1, store=store):
        made = Trainer(source, dtype, tokens)
        yield made
        made.policy.close()
