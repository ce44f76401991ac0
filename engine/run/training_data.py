"""Batches that a run learns, and sets that it measures its loss on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from engine.config.sft_data import SftDataConfig
from engine.config.trainer import LoadingConfig
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.data.batches import Batch, BatchReader, Source, validation_rows
from engine.data.loader import Loader, open_loader
from engine.data.order import Order, Shuffled, in_turn
from engine.data.packing import TokenIds
from engine.data.sft_dataset import SftDataset, SftDatasets, open_sft_datasets
from engine.parallel.groups import counts_its_tokens, data_rank, data_ranks
from engine.platform.closing import Closing
from engine.run.data_position import DataPosition
from engine.run.run_config import RunConfig
from engine.training.forward import log_probabilities
from engine.training.trained_model import TrainedModel

SHUFFLED = "shuffled"
"""Name of the source that is learned in another order in every epoch."""


class TrainingData(Closing):
    """What a run learns and measures, on one trainer rank. All ranks call at the same points.

    Attributes:
        packing: how samples become rows on this rank.
        position: samples that are learned, by the name of their source.
    """

    def __init__(self, config: RunConfig, first_step: int) -> None:
        self._config = config
        self.position = DataPosition(first_step)
        self.packing = Packing.of(config.training, config.layout, data_rank(), data_ranks())
        self._loader: Loader | None = None
        self._measured: dict[Path, list[WeightedRow]] = {}

    def batches(
        self,
        loading: LoadingConfig,
        name: str,
        source: Source,
        samples: int,
        step: int,
        order: Order = in_turn,
    ) -> Iterator[Batch]:
        """Start to load batches ahead of their use, from where the run has left the source.

        Ends an earlier loading.

        Args:
            loading: who loads, and how far ahead.
            name: of the source; checkpoints say by it how much was learned.
            source: samples by index.
            samples: of one batch, on all ranks; another number than an earlier start's leaves no
                sample out and takes none twice.
            step: the first one that learns from it.
            order: which sample is number n of the stream.
        """
        self.close()
        position = self.position.begin(name, samples, step)
        reader = BatchReader(source, order, samples, self.packing)
        device = torch.device(torch.cuda.current_device())
        self._loader = open_loader(loading, reader, position, device)
        return self._loader

    def conversations(self, data: SftDataConfig, model: Path) -> SftDatasets:
        """Tokenize conversations once, into RUN_DIR/data, and open what is there.

        Args:
            model: the Hugging Face folder whose tokenizer and chat template are used.

        Raises:
            RunError: a file, record or answer is not as it should be; says where.
        """
        folder = self._config.run_dir / "data"
        found = open_sft_datasets(data, model, folder, rank=dist.get_rank())
        if dist.get_rank() == 0:
            for part in filter(None, (found.train, found.validation)):
                print(part.line(), flush=True)
        return found

    def shuffled(self, loading: LoadingConfig, data: SftDataset, samples: int) -> Iterator[Batch]:
        """Load batches of ``data`` from the run's first step on, every epoch in another order.

        Args:
            samples: of one batch, on all ranks.
        """
        order, step = Shuffled(len(data.tokens), self._config.seed), self.position.first_step
        return self.batches(loading, SHUFFLED, data.tokens, samples, step, order)

    def last_step(self, data: SftDataset, epochs: int, samples: int) -> int:
        """Return how many steps a run has in all that learns ``data`` for ``epochs`` epochs.

        Args:
            samples: of one batch, on all ranks.
        """
        return self.position.last_step(SHUFFLED, epochs * len(data.tokens), samples)

    def mean_loss(self, model: TrainedModel, data: SftDataset) -> float:
        """Compute the mean loss of ``model`` over all response tokens of ``data``.

        Returns:
            Nats per token, on every rank.

        Raises:
            Diverged: it is not finite.
        """
        if data.folder not in self._measured:
            device = torch.cuda.current_device()
            self._measured[data.folder] = validation_rows(data.tokens, self.packing, device)
        rows = self._measured[data.folder]
        found = log_probabilities(model.chunks, rows, model.head)
        mine = 0.0
        if found is not None and counts_its_tokens():
            losses = (-(logp * row.weights).sum() for row, logp in zip(rows, found, strict=True))
            mine = float(sum(losses))
        loss = sum_over_ranks(mine)
        if not math.isfinite(loss):
            model.guard.refuse(
                f"the loss of the samples that are never learned is {loss}; most likely earlier "
                f"updates were too large: lower optimizer.lr"
            )
        return loss

    def log_probabilities(
        self, model: TrainedModel, samples: Sequence[tuple[TokenIds, TokenIds]]
    ) -> dict[int, Tensor]:
        """Compute the log-probability of every response token, without gradients.

        Args:
            samples: each (prompt tokens, response tokens); the same on all ranks.

        Returns:
            Sample's index -> float32 [response tokens]. Each sample is on exactly one rank.
        """
        device = torch.cuda.current_device()
        (part,) = build_minibatches(samples, [1.0] * len(samples), self.packing, device=device)
        found = log_probabilities(model.chunks, part.rows, model.head)
        if found is None or not counts_its_tokens():
            return {}
        return {
            index: tokens
            for row, logp in zip(part.rows, found, strict=True)
            for index, tokens in zip(row.members, row.packed.gather(logp), strict=True)
        }

    def close(self) -> None:
        """Stop loading ahead."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def sum_over_ranks(value: float) -> float:
    """Return the sum of all ranks' values, on every rank."""
    total = torch.tensor([value], dtype=torch.float64, device=torch.cuda.current_device())
    dist.all_reduce(total)
    return float(total)
