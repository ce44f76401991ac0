"""What ranks of one layout do in the tests of this folder: train, save, load, train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  # noqa: F401  (readies the platform)

import torch
import torch.distributed as dist

from engine.algorithms.next_token import next_token
from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, build_minibatches
from engine.parallel.groups import data_rank, data_ranks
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.reference import Reference
from engine.training.trained_model import TrainedModel

BEGIN, END = 2, 5
SEED = 1
LEARNING_RATE = 1e-2
TRAINING = TrainingConfig(dtype="float32", tokens_per_microbatch=96, mtp_loss_weight=0.3)
PROGRESS = {"weight_version": BEGIN, "reference_version": 0}


class Life:
    """A policy with random weights and its reference, in one layout."""

    def __init__(
        self, layout: LayoutConfig, model: Mapping[str, Any], training: TrainingConfig = TRAINING
    ) -> None:
        self.packing = Packing.of(training, layout, data_rank(), data_ranks())
        optimizer = OptimizerConfig(lr=LEARNING_RATE, eps=1e-5, weight_decay=0.01)
        head = TokenLogProbs(1.0, training.logits_chunk_tokens)
        self.policy = TrainedModel(dict(model), layout, optimizer, training, head)
        self.reference = Reference(dict(model), layout, training)
        self.state = TrainingState(self.policy.chunks, self.policy.optimizer, self.reference.chunks)

    def update(self, step: int, *, loss: Any = next_token, rate: float = LEARNING_RATE) -> None:
        """Learn samples that depend on the step alone."""
        generator = torch.Generator().manual_seed(step)
        lengths = torch.randint(8, 24, (16,), generator=generator).tolist()
        tokens = [torch.randint(48, (length,), generator=generator).tolist() for length in lengths]
        samples = [(sample[:5], sample[5:]) for sample in tokens]
        weights = [1.0 / sum(len(answer) for _, answer in samples)] * len(samples)
        (minibatch,) = build_minibatches(samples, weights, self.packing)
        self.policy.update(minibatch.rows, loss, minibatch.tokens, rate)


def checkpoints(folder: Path, **config: Any) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(**{"every": 1, "keep": 9, **config}), SEED)


def begin(layout: LayoutConfig, model: Mapping[str, Any], folder: Path) -> None:
    """Train to step BEGIN, save, and train on."""
    life = Life(layout, model)
    life.reference.refresh(life.policy, version=0)
    for step in range(BEGIN):
        life.update(step)
    _go_on(life, folder)


def take_over(layout: LayoutConfig, model: Mapping[str, Any], folder: Path, source: Path) -> None:
    """Load step BEGIN from ``source``, save it again at once, and train on."""
    life = Life(layout, model)
    assert checkpoints(source).load(BEGIN, life.state) == PROGRESS
    _go_on(life, folder)


def save_after_two_updates(
    layout: LayoutConfig, model: Mapping[str, Any], folder: Path, options: Mapping[str, Any]
) -> None:
    life = Life(layout, model, TRAINING.model_copy(update=options))
    for step in range(2):
        life.update(step)
    own = checkpoints(folder)
    own.save(2, life.state, {})
    own.finish()


def _go_on(life: Life, folder: Path) -> None:
    own = checkpoints(folder)
    own.save(BEGIN, life.state, PROGRESS)
    for step in range(BEGIN, END):  # while a child process writes
        life.update(step)
        own.poll()
    own.save(END, life.state, {})
    own.finish()


def draw(layout: LayoutConfig, model: Mapping[str, Any], folder: Path, saves: bool) -> float:
    """Save or load step 1; the next random number of this rank."""
    life = Life(layout, model)
    own = checkpoints(folder)
    if saves:
        torch.manual_seed(1000 + dist.get_rank())
        own.save(1, life.state, {})
        own.finish()
    else:
        torch.manual_seed(0)
        own.load(1, life.state)
    return torch.rand(1).item()
