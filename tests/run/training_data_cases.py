"""Ranks' part of the tests of TrainingData; import it in a pool's ranks only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  (readies the platform for megatron)

from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.sft_dataset import SftDataset
from engine.data.sft_folder import SampleCounts
from engine.data.token_dataset import TokenDataset
from engine.run.run_config import RunConfig
from engine.run.training_data import TrainingData, sum_over_ranks
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.trained_model import TrainedModel
from recipes.chain_task.gate import GateConfig, gate_probability
from recipes.chain_task.problems import ProblemsConfig
from tools.benchmarks.parity.updates import initialise

__all__ = ["rank_imports"]

ROW_TOKENS = 96


def measured(
    layout: LayoutConfig, model: dict[str, Any], dataset: Path, samples: list[Any]
) -> tuple[list[float], dict[int, list[float]]]:
    """Return the mean loss over ``dataset``, twice, and this rank's log-probabilities."""
    data, policy = _made(layout, model)
    tokens = TokenDataset(dataset)
    part = SftDataset("validation", dataset, tokens, SampleCounts(samples=len(tokens)))
    losses = [data.mean_loss(policy, part) for _ in range(2)]
    found = data.log_probabilities(policy, samples)
    policy.close()
    return losses, {index: logp.tolist() for index, logp in found.items()}


def gated(layout: LayoutConfig, model: dict[str, Any], problems: int) -> float:
    """Return the gate's probability, with what it needs of a run.

    Problems are short and the temperature high, so that each problem's share in it is visible.
    """
    data, policy = _made(layout, model, temperature=3.0)
    run: Any = SimpleNamespace(
        config=SimpleNamespace(seed=3), data=data, sum_over_ranks=sum_over_ranks
    )
    gate = GateConfig(problems=problems, min_probability=0.0)
    short = ProblemsConfig(fewest_operations=1, most_operations=1, held_out_share=0.5)
    probability = gate_probability(run, policy, gate, short)
    policy.close()
    return probability


def _made(
    layout: LayoutConfig, model: dict[str, Any], temperature: float = 1.0
) -> tuple[TrainingData, TrainedModel]:
    training = TrainingConfig(
        dtype="float32", tokens_per_microbatch=ROW_TOKENS, logits_chunk_tokens=40
    )
    head = TokenLogProbs(temperature, training.logits_chunk_tokens)
    policy = TrainedModel(model, layout, OptimizerConfig(lr=1e-2), training, head)
    initialise(policy)
    config = RunConfig.model_construct(
        seed=3, layout=layout, training=training, checkpoint=CheckpointConfig(every=1)
    )
    return TrainingData(config, first_step=0), policy
