"""What ranks of a pool run for the tests of options; import it in a pool's ranks only."""

from __future__ import annotations

from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  (readies the platform for megatron)

import torch

from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.packing import pack
from engine.models.torch_layers.experts import GroupedExperts
from engine.parallel.groups import data_rank
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.reference import Reference
from engine.training.trained_model import TrainedModel
from engine.weights.tensor_stream import TensorStream

__all__ = ["rank_imports"]


class Row:
    """One sample on each data-parallel rank."""

    def __init__(self) -> None:
        self.packed = pack([([3, 1, 4], [1, 5, 9 + data_rank()])])
        self.weights = self.packed.spread([1.0])


def collected_by_an_old_stream(
    layout: LayoutConfig, model: dict[str, Any], options: dict[str, Any]
) -> tuple[dict, dict] | None:
    """Weights after an update: from a stream that was built before it, and from a new one."""
    policy = _policy(layout, model, options)
    old = TensorStream(policy.chunks)
    _update(policy)
    first = old.collect()
    return first, TensorStream(policy.chunks).collect()


def scored_by_the_reference(
    layout: LayoutConfig, model: dict[str, Any], offload: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The policy's log-probabilities, and the reference's after the policy has moved on."""
    policy = _policy(layout, model, {})
    reference = Reference(
        model, layout, TrainingConfig(dtype="float32", tokens_per_microbatch=96), offload=offload
    )
    reference.refresh(policy, version=0)
    before = reference.log_probabilities([Row()], policy)
    _update(policy)
    after = reference.log_probabilities([Row()], policy)
    assert before is not None and after is not None
    return before, after


def expert_modules(layout: LayoutConfig, model: dict[str, Any], options: dict[str, Any]) -> int:
    """How many layers compute their experts grouped."""
    policy = _policy(layout, model, options)
    return sum(isinstance(module, GroupedExperts) for module in policy.chunks[0].modules())


def _policy(layout: LayoutConfig, model: dict[str, Any], options: dict[str, Any]) -> TrainedModel:
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=96, **options)
    head = TokenLogProbs(1.0, training.logits_chunk_tokens)
    return TrainedModel(model, layout, OptimizerConfig(lr=0.01), training, head)


def _update(policy: TrainedModel) -> None:
    def loss(outputs: TokenOutputs, row: Row) -> tuple:
        return -(outputs.logp * row.weights).sum(), {}

    policy.update([Row()], loss, tokens=10, learning_rate=0.01)
