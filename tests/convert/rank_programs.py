"""What ranks of one layout do in the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  # noqa: F401  (readies the platform)

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import (
    gather_from_sequence_parallel_region,
    gather_from_tensor_model_parallel_region,
)
from torch import Tensor

from engine.algorithms.next_token import next_token_loss
from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.loading import load_weights
from engine.checkpoint.training_state import TrainingState
from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import WeightedRow
from engine.data.packing import PackedRow, pack
from engine.errors import RunError
from engine.models.build import build
from engine.training.forward import hidden_states, run_schedule
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from engine.weights.shards import shards, unwrap

TRAINING = TrainingConfig(dtype="float32", tokens_per_microbatch=256)


@dataclass
class Row:
    packed: PackedRow


def logits(
    layout: LayoutConfig, folder: Path, prompts: Sequence[Sequence[int]]
) -> list[Tensor] | None:
    """[tokens, V] of each prompt, from a converted checkpoint; on the last stage's first rank."""
    chunks = _loaded(layout, folder)

    def step(pending: Iterator[Row], chunk: torch.nn.Module) -> Any:
        row = next(pending).packed

        def collect(hidden: Tensor, non_loss_data: bool) -> Tensor:
            whole = gather_from_sequence_parallel_region(hidden)[:, 0]
            mine = torch.nn.functional.linear(whole, unwrap(chunk).head_weight())
            return gather_from_tensor_model_parallel_region(mine)

        return hidden_states(chunk, row), collect

    rows = [Row(pack([(list(p), [0])], row_multiple=layout.row_multiple)) for p in prompts]
    found = run_schedule(chunks, rows, step, forward_only=True)
    first = parallel_state.get_tensor_model_parallel_rank() == 0
    if not found or not first:
        return None
    return [row[: len(prompt)] for row, prompt in zip(found, prompts, strict=True)]


def held(layout: LayoutConfig, folder: Path) -> list[tuple[str, int | None, Any, Any]]:
    """Key, expert, whole shape and place of every piece that this rank speaks for."""
    config = HuggingFaceFolder(folder).config
    mine = [s for s in shards(build(config, layout, TRAINING)) if s.main]
    return [(s.key, s.expert, s.shape, tuple((p.start, p.stop) for p in s.place)) for s in mine]


def refusal(layout: LayoutConfig, folder: Path, config: dict[str, Any]) -> str:
    """What loading ``folder`` into a model of ``config`` says."""
    try:
        load_weights(build(config, layout, TRAINING), folder)
    except RunError as error:
        return str(error)
    return ""


def folder_refusal(layout: LayoutConfig, folder: Path) -> str:
    """What loading a Hugging Face folder into its model says."""
    source = HuggingFaceFolder(folder)
    try:
        load(build(source.config, layout, TRAINING), source)
    except RunError as error:
        return str(error)
    return ""


def train_and_save(layout: LayoutConfig, model: Path, run: Path) -> None:
    """Two updates from ``model``, each with a checkpoint and an export beside it."""
    source = HuggingFaceFolder(model)
    head = TokenLogProbs(1.0, TRAINING.logits_chunk_tokens)
    policy = TrainedModel(source.config, layout, OptimizerConfig(lr=1e-2), TRAINING, head)
    load(policy.chunks, source)
    policy.parameters_changed()
    checkpoints = Checkpoints(run / "checkpoints", CheckpointConfig(every=1, keep=9), seed=1)
    exporter = Exporter(policy.chunks, source)
    state = TrainingState(policy.chunks, policy.optimizer)
    for step in (1, 2):
        packed = pack([([1, 2, 3], [4, 5, step])], row_multiple=layout.row_multiple)
        policy.update([WeightedRow(packed, packed.spread([1.0]), (0,))], _loss, 5, 1e-2)
        checkpoints.save(step, state, {})
        checkpoints.finish()
        exporter.export(run / f"exported-{step}")
    dist.barrier()


def _loaded(layout: LayoutConfig, folder: Path) -> list[Any]:
    chunks = build(HuggingFaceFolder(folder).config, layout, TRAINING)
    load_weights(chunks, folder)
    return list(chunks)


def _loss(outputs: TokenOutputs, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token_loss(outputs.logp, row.weights)
