"""Time training with a save in it, on every rank of ``tools.benchmarks.checkpoint``."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks import rank_imports  # noqa: F401  # isort: skip  (readies the platform)

import torch
import torch.distributed as dist
from torch import Tensor

from engine.algorithms.next_token import next_token_loss
from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.parallel.groups import data_rank, data_ranks
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.trained_model import TrainedModel

WAYS = ("no save", "synchronous", "asynchronous")


@dataclass(frozen=True)
class Turn:
    """Times of one way's turn on rank 0.

    Attributes:
        way: of :data:`WAYS`.
        blocked_seconds: training stood still for the save, until it went on or had ended.
        loop_seconds: all updates of the turn, and the save as far as it blocked them.
        whole_seconds: from the begin of the save until the checkpoint was whole.
        bytes: size of the checkpoint.
    """

    way: str
    blocked_seconds: float
    loop_seconds: float
    whole_seconds: float
    bytes: int


def take_turns(
    layout: LayoutConfig, model: dict[str, Any], folder: Path, updates: int, tokens: int, turns: int
) -> list[Turn]:
    """Run the ways in turn with one policy, so that a noisy machine affects all of them alike.

    Args:
        updates: of one turn; the save comes after the first.
        tokens: of one update on each rank.
    """
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=tokens + 1)
    head = TokenLogProbs(1.0, training.logits_chunk_tokens)
    policy = TrainedModel(model, layout, OptimizerConfig(lr=1e-4), training, head)
    state = TrainingState(policy.chunks, policy.optimizer)
    row = _row(model["vocab_size"], tokens, layout, training)
    total = tokens * layout.dp

    def update() -> None:
        policy.update([row], _loss, total, learning_rate=1e-4)

    update()
    found = []
    for turn in range(turns + 1):
        for way in WAYS:
            place = folder / way.replace(" ", "-")
            config = CheckpointConfig(every=1, keep=1, asynchronous=way == "asynchronous")
            found.append(_turn(way, update, Checkpoints(place, config, seed=1), state, updates))
            dist.barrier()
            if dist.get_rank() == 0:
                shutil.rmtree(place, ignore_errors=True)
            dist.barrier()
        if turn == 0:
            found.clear()  # what loads late has been loaded
    policy.close()
    return found


def _turn(
    way: str, update: Any, checkpoints: Checkpoints, state: TrainingState, updates: int
) -> Turn:
    blocked, whole = 0.0, 0.0
    started = time.perf_counter()
    for step in range(updates):
        update()
        dist.barrier()  # waiting for the slower rank is the update's, not the save's
        begun = time.perf_counter()
        if step == 0 and way != "no save":
            save_began = begun
            checkpoints.save(1, state, {})
        checkpoints.poll()
        now = time.perf_counter()
        blocked += now - begun
        if not whole and checkpoints.folders.steps():
            whole = now - save_began
    loop = time.perf_counter() - started
    checkpoints.finish()
    if way != "no save":
        whole = whole or time.perf_counter() - save_began
    files = checkpoints.folders.folder(1).glob("*")
    return Turn(way, blocked, loop, whole, sum(file.stat().st_size for file in files))


def _row(
    vocabulary: int, tokens: int, layout: LayoutConfig, training: TrainingConfig
) -> WeightedRow:
    """Return a row with one sample of so many tokens on each data-parallel rank."""
    drawn = torch.randint(vocabulary, (tokens + 1,), generator=torch.Generator().manual_seed(0))
    (minibatch,) = build_minibatches(
        [(drawn[:1].tolist(), drawn[1:].tolist())] * layout.dp,
        [1.0 / (tokens * layout.dp)] * layout.dp,
        Packing.of(training, layout, data_rank(), data_ranks()),
        device=torch.cuda.current_device(),
    )
    (row,) = minibatch.rows
    return row


def _loss(outputs: TokenOutputs, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token_loss(outputs.logp, row.weights)
