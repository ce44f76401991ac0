"""Losses of a small model in training, in FP8 or not; import it in a pool's ranks only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tools.benchmarks import rank_imports  # noqa: F401  # isort: skip  (readies the platform)

import torch

from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.trained_model import TrainedModel
from engine.weights.tensor_stream import TensorStream
from tools.benchmarks.parity.updates import (
    LOSSES,
    Sample,
    parity_rows,
)

SAMPLES = 32
LENGTH = 48
SUCCESSORS = 4
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Course:
    """A training: the loss of every update, and the weights it began with in one number."""

    losses: list[float]
    beginning: float


def train(layout: LayoutConfig, *, model: dict[str, Any], fp8: str, updates: int) -> Course:
    """SFT in bfloat16, each update on new samples of the same chain of words."""
    training = TrainingConfig.model_validate(
        {"dtype": "bfloat16", "tokens_per_microbatch": SAMPLES * LENGTH, "fp8": fp8}
    )
    head = TokenLogProbs(1.0, training.logits_chunk_tokens)
    policy = TrainedModel(model, layout, OptimizerConfig(lr=LEARNING_RATE), training, head)
    weights = TensorStream(policy.chunks).collect().values()
    beginning = sum(float(weight.double().abs().sum()) for weight in weights)
    losses = []
    for number in range(updates):
        rows = parity_rows(layout, training, chain(model["vocab_size"], number), "sft")
        tokens = SAMPLES * (LENGTH - 1)
        losses.append(policy.update(rows, LOSSES["sft"], tokens, LEARNING_RATE)["loss"])
    policy.close()
    return Course(losses, beginning)


def chain(words: int, seed: int) -> list[Sample]:
    """Samples of a Markov chain in which each word has a few successors: there is much to learn."""
    after = torch.randint(words, (words, SUCCESSORS), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + seed)
    tokens = [torch.randint(words, (SAMPLES,), generator=generator)]
    for _ in range(LENGTH - 1):
        choice = torch.randint(SUCCESSORS, (SAMPLES,), generator=generator)
        tokens.append(after[tokens[-1], choice])
    noise = [0.0] * (LENGTH - 1)
    return [Sample(row[:1], row[1:], 0.0, noise) for row in torch.stack(tokens, 1).tolist()]
