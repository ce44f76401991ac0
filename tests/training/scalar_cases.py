"""What ranks of a pool run for the tests of the scalar head; import it in a pool's ranks only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  (readies the platform for megatron)

import torch
import torch.distributed as dist
from torch import Tensor

from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.parallel.groups import data_rank, data_ranks
from engine.training.forward import outputs
from engine.training.heads.scalar import ScalarHead, whole_text
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from engine.weights.tensor_stream import TensorStream
from tools.benchmarks.parity.compare import Outcome
from tools.benchmarks.parity.updates import initialise

__all__ = ["rank_imports"]

UPDATES = 3
LEARNING_RATE = 1e-2
HEAD = {"learning_rate_factor": 3.0, "weight_decay": 0.5}
EPS = 1e-3


@dataclass
class Row:
    """One microbatch; ``targets`` float32 [samples]."""

    packed: Any
    members: tuple[int, ...]
    targets: Tensor


def three_updates(
    layout: LayoutConfig,
    *,
    model: dict[str, Any] | None = None,
    source: Path | None = None,
    texts: Sequence[list[int]],
    targets: Sequence[float],
    head: dict[str, Any] = HEAD,
    options: dict[str, Any] | None = None,
    save: Path | None = None,
    resume: Path | None = None,
    export: Path | None = None,
) -> tuple[dict[int, float], Outcome, Outcome]:
    """Score every text, then learn ``targets`` for three updates.

    Args:
        model: contents of a ``config.json``, for weights that depend on their names alone; or
        source: a folder to load.
        save: save a checkpoint there after the second update.
        resume: go on from there: only the third update.
        export: write the model there at the end.

    Returns:
        values before by the text's number, where this rank has them; weights before; losses and
        weights after.
    """
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=96, **(options or {}))
    optimizer = OptimizerConfig(lr=LEARNING_RATE, eps=EPS)
    config = model if source is None else HuggingFaceFolder(source).config
    policy = TrainedModel(config, layout, optimizer, training, ScalarHead(**head))
    if source is None:
        initialise(policy)
    else:
        policy.parameters_changed(load(policy.chunks, HuggingFaceFolder(source)))
    before = Outcome([], _weights(policy))
    rows, tokens = _rows(layout, training, texts, targets)
    values = _values(policy, rows)

    checkpoints = Checkpoints(save or resume or Path("unused"), CheckpointConfig(every=1), seed=1)
    state = TrainingState(policy.chunks, policy.optimizer)
    first = checkpoints.latest() if resume else 0
    if resume:
        checkpoints.load(first, state)
    losses = []
    for update in range(first, UPDATES):
        losses.append(policy.update(rows, _loss, tokens, LEARNING_RATE)["loss"])
        if save and update == 1:
            checkpoints.save(2, state, {})
            checkpoints.finish()
    if export is not None:
        assert source is not None
        Exporter(policy.chunks, HuggingFaceFolder(source)).export(export)
    after = Outcome(losses, _weights(policy))
    policy.close()
    return values, before, after


def _rows(
    layout: LayoutConfig,
    training: TrainingConfig,
    texts: Sequence[list[int]],
    targets: Sequence[float],
) -> tuple[list[Row], int]:
    (minibatch,) = build_minibatches(
        [whole_text(text) for text in texts],
        [1.0] * len(texts),
        Packing.of(training, layout, data_rank(), data_ranks()),
        device=torch.cuda.current_device(),
    )

    def row_of(row: WeightedRow) -> Row:
        mine = torch.tensor([targets[i] for i in row.members], dtype=torch.float32)
        return Row(row.packed, row.members, mine.to(row.weights.device))

    assert minibatch.tokens == sum(map(len, texts))
    return [row_of(row) for row in minibatch.rows], minibatch.tokens


def _values(policy: TrainedModel, rows: list[Row]) -> dict[int, float]:
    found = outputs(policy.chunks, rows, policy.head)
    return {
        text: value
        for row, values in zip(rows, found or [], strict=False)
        for text, value in zip(row.members, values.tolist(), strict=True)
    }


def _loss(values: Tensor, row: Row) -> tuple[Tensor, dict[str, Tensor]]:
    loss = ((values - row.targets) ** 2).sum() / 16
    return loss, {"loss": loss.detach()}


def _weights(policy: TrainedModel) -> Any:
    whole = TensorStream(policy.chunks).collect()
    return whole if dist.get_rank() == 0 else None


def refused(layout: LayoutConfig, model: dict[str, Any], **training: Any) -> None:
    """Build it: an error is expected."""
    settings = TrainingConfig(dtype="float32", tokens_per_microbatch=96, **training)
    TrainedModel(model, layout, OptimizerConfig(lr=1e-2), settings, ScalarHead())
