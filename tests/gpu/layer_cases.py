"""What ranks of a pool run for the tests of this folder; import it in a pool's ranks only.

``layers`` says whose layers compute: ``engine``, Transformer Engine's, or ``torch``, ours. Both
have the same checkpoint keys, so weights and gradients are compared by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tools.benchmarks import rank_imports  # noqa: F401  # isort: skip  (readies the platform)

import pytest
import torch
from torch import Tensor

from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.platform import accelerator
from engine.training.forward import log_probabilities
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.trained_model import TrainedModel
from engine.weights.tensor_stream import TensorStream
from tools.benchmarks.parity.compare import Outcome, Weights
from tools.benchmarks.parity.updates import (
    LOSSES,
    TOKENS_PER_MICROBATCH,
    ParityRow,
    initialise,
    make_samples,
    parity_rows,
    three_updates,
)

Layers = Literal["engine", "torch"]


@dataclass(frozen=True)
class Passes:
    """One forward and one backward pass over packed rows.

    Attributes:
        logp: of every position that is a response's, all rows in order, float32.
        gradients: by (megatron key, expert), as weights are.
    """

    logp: Tensor
    weights: Weights
    gradients: Weights


@contextmanager
def computed_by(layers: Layers) -> Iterator[None]:
    """Models built inside have ``layers``."""
    with pytest.MonkeyPatch.context() as patch:
        if layers == "torch":
            patch.setattr(accelerator, "has_transformer_engine", lambda: False)
        yield


@contextmanager
def products_in_tf32() -> Iterator[None]:
    """Have torch round the factors of float32 products, as Transformer Engine always does."""
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def passes(
    layout: LayoutConfig, *, layers: Layers, model: dict[str, Any], dtype: str, tf32: bool = False
) -> Passes:
    """Log-probabilities and gradients of the parity table's samples, from its first weights.

    Args:
        tf32: round the factors of float32 products (torch's; the engine's always are).
    """
    training = _training(dtype)
    with computed_by(layers), products_in_tf32() if tf32 else nullcontext():
        policy = _policy(layout, model, training)
        initialise(policy)
        rows, tokens = _rows(layout, model, training)
        logp = log_probabilities(policy.chunks, rows, policy.head)
        assert logp is not None
        chosen = [found[row.packed.response_mask] for found, row in zip(logp, rows, strict=True)]
        weights = _on_the_host(TensorStream(policy.chunks).collect())
        policy.update(rows, LOSSES["sft"], tokens, learning_rate=0.0)
        gradients = _gradients(policy)
        policy.close()
    return Passes(torch.cat(chosen).cpu(), weights, gradients)


@torch.no_grad()
def _gradients(policy: TrainedModel) -> Weights:
    """Gradients take the parameters' place, and so get their keys; the policy is spent then."""
    for chunk in policy.chunks:
        for parameter in chunk.parameters():
            parameter.copy_(parameter.main_grad)
    found = _on_the_host(TensorStream(policy.chunks).collect())
    return {key: tensor for key, tensor in found.items() if not key[0].endswith("expert_bias")}


def updates(layout: LayoutConfig, *, layers: Layers, **arguments: Any) -> dict[str, Outcome]:
    """The parity table's three updates, with ``layers``."""
    with computed_by(layers):
        found = three_updates(layout, **arguments)
    return {
        kind: Outcome(one.losses, None if one.weights is None else _on_the_host(one.weights))
        for kind, one in found.items()
    }


def save(
    layout: LayoutConfig,
    *,
    layers: Layers,
    model: dict[str, Any],
    dtype: str,
    folder: Path,
    computes: bool = True,
    asynchronous: bool = False,
) -> Weights:
    """One update from the parity table's first weights, and a checkpoint; the weights in it.

    Args:
        computes: False leaves the update out, for layers that cannot compute here.
        asynchronous: the weights change while the checkpoint is being written.
    """
    training = _training(dtype)
    with computed_by(layers):
        policy = _policy(layout, model, training)
        initialise(policy)
        rows, tokens = _rows(layout, model, training)
        if computes:
            policy.update(rows, LOSSES["sft"], tokens, learning_rate=1e-2)
        weights = _on_the_host(TensorStream(policy.chunks).collect())
        checkpoints = _checkpoints(folder, asynchronous)
        checkpoints.save(1, TrainingState(policy.chunks, policy.optimizer), {})
        if asynchronous:
            policy.update(rows, LOSSES["sft"], tokens, learning_rate=1e-2)
        checkpoints.finish()
        policy.close()
    return weights


def load(
    layout: LayoutConfig, *, layers: Layers, model: dict[str, Any], dtype: str, folder: Path
) -> tuple[Weights, Weights]:
    """Random weights, and what a checkpoint makes of them."""
    with computed_by(layers):
        policy = _policy(layout, model, _training(dtype))
        stream = TensorStream(policy.chunks)
        before = _on_the_host(stream.collect())
        _checkpoints(folder).load(1, TrainingState(policy.chunks, policy.optimizer))
        after = _on_the_host(stream.collect())
        policy.close()
    return before, after


def _training(dtype: str) -> TrainingConfig:
    keys = {"dtype": dtype, "tokens_per_microbatch": TOKENS_PER_MICROBATCH, "mtp_loss_weight": 0.3}
    return TrainingConfig.model_validate(keys)


def _rows(
    layout: LayoutConfig, model: dict[str, Any], training: TrainingConfig
) -> tuple[list[ParityRow], int]:
    """The parity table's rows for SFT, and how many real tokens they hold."""
    samples = make_samples(model["vocab_size"])
    tokens = sum(len(s.prompt) + len(s.response) - 1 for s in samples)
    return parity_rows(layout, training, samples, "sft"), tokens


def _on_the_host(weights: Weights) -> Weights:
    """Copies that outlive the parameters, and reach the test without CUDA between processes."""
    return {key: tensor.to("cpu", copy=True) for key, tensor in weights.items()}


def _policy(layout: LayoutConfig, model: dict[str, Any], training: TrainingConfig) -> TrainedModel:
    """A policy whose gradients are never clipped."""
    head = TokenLogProbs(1.0, training.logits_chunk_tokens)
    return TrainedModel(model, layout, OptimizerConfig(lr=1e-2, clip_grad=1e9), training, head)


def _checkpoints(folder: Path, asynchronous: bool = False) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(every=1, asynchronous=asynchronous), seed=1)
