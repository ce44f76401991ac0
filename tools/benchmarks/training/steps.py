"""Time training steps on a rank of a pool, and measure their memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.benchmarks import rank_imports  # noqa: F401  # isort: skip  (readies the platform)

import torch
import torch.distributed as dist
from torch import Tensor

from engine.algorithms.aggregation import token_mean_weights
from engine.algorithms.next_token import next_token_loss
from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, WeightedMinibatch, WeightedRow, build_minibatches
from engine.errors import RunError
from engine.models.transformer_config_args import kernels_of
from engine.parallel.groups import data_rank, data_ranks
from engine.platform import accelerator
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.trained_model import TrainedModel
from tools.benchmarks.memory import peak, release, resident, start_peak
from tools.benchmarks.training.profile import Profile, profiled

LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Measured:
    """Steps that one rank has timed.

    Attributes:
        seconds: of each step, from one barrier of all ranks to the next.
        peak_bytes: most memory held at a time, above what was held before the model was built.
        losses: of each step.
        row_tokens: of the longest row.
        profile: of one more step, if asked for.
    """

    seconds: tuple[float, ...]
    peak_bytes: int
    losses: tuple[float, ...]
    microbatches: int
    row_tokens: int
    kernels: dict[str, str]
    device: str
    profile: Profile | None


@dataclass(frozen=True)
class Refused:
    """What the engine says about a variant that cannot run here."""

    reason: str


@contextmanager
def variables(given: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that libraries see inside."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def train_steps(
    layout: LayoutConfig, *, environment: Mapping[str, str], **arguments: Any
) -> Measured | Refused:
    """:func:`measured_steps` with the variables ``environment``."""
    with variables(environment):
        return measured_steps(layout, **arguments)


def measured_steps(
    layout: LayoutConfig,
    model: dict[str, Any],
    training: TrainingConfig,
    lengths: Sequence[int],
    warmup: int,
    steps: int,
    profile: bool,
) -> Measured | Refused:
    """Build a policy with random weights and update it on the same minibatch again and again.

    Args:
        model: contents of a ``config.json``.
        lengths: positions of each sample of the minibatch, over all ranks.
        warmup: steps before those that are timed.
        profile: whether one more step runs under the profiler.

    Returns:
        :class:`Refused` where every rank's engine refuses the configuration.
    """
    device = "cuda" if accelerator.has_gpu() else "cpu"
    release(device)
    start_peak(device)
    before = resident(device)
    try:
        head = TokenLogProbs(1.0, training.logits_chunk_tokens)
        policy = TrainedModel(model, layout, OptimizerConfig(lr=LEARNING_RATE), training, head)
    except RunError as error:
        return Refused(str(error))
    batch = _minibatch(layout, training, lengths, model["vocab_size"])
    losses = []

    def step() -> float:
        begun = _together()
        metrics = policy.update(batch.rows, _loss, batch.tokens, LEARNING_RATE)
        losses.append(metrics["loss"])
        return _together() - begun

    seconds = [step() for _ in range(warmup + steps)]
    held = peak(device) - before
    found = Measured(
        seconds=tuple(seconds[warmup:]),
        peak_bytes=held,
        losses=tuple(losses[warmup:]),
        microbatches=len(batch.rows),
        row_tokens=max(len(row.packed.tokens) for row in batch.rows),
        kernels=kernels_of(training),
        device=accelerator.device_name(),
        profile=profiled(step) if profile else None,
    )
    policy.close()
    return found


def _together() -> float:
    """The time when every rank has done all its work."""
    torch.cuda.synchronize()
    dist.barrier()
    return time.perf_counter()


def _loss(outputs: TokenOutputs, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token_loss(outputs.logp, row.weights)


def _minibatch(
    layout: LayoutConfig, training: TrainingConfig, lengths: Sequence[int], words: int
) -> WeightedMinibatch:
    """This rank's part of one minibatch of random tokens, built as a run's are."""
    (minibatch,) = build_minibatches(
        [_sample(index, length, words) for index, length in enumerate(lengths)],
        token_mean_weights(lengths, sum(lengths)),
        Packing.of(training, layout, data_rank(), data_ranks()),
        device=torch.cuda.current_device(),
    )
    return minibatch


def _sample(index: int, length: int, words: int) -> tuple[list[int], list[int]]:
    """A prompt of one token and a response of ``length``, so many positions in all."""
    generator = torch.Generator().manual_seed(index)
    tokens = torch.randint(words, (length + 1,), generator=generator).tolist()
    return tokens[:1], tokens[1:]
