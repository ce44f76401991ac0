"""Make three updates of a small model in one layout, on every rank of a pool."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.benchmarks import rank_imports  # noqa: F401  # isort: skip  (readies the platform)

import torch
import torch.distributed as dist
from torch import Tensor

from engine.algorithms.aggregation import sequence_mean_weights, token_mean_weights
from engine.algorithms.grpo import Grpo
from engine.algorithms.next_token import next_token_loss
from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, build_minibatches
from engine.models.gpt import MtpMode
from engine.parallel.groups import data_rank, data_ranks
from engine.run.rollout_batch import RolloutRow
from engine.training.forward import log_probabilities
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.trained_model import TrainedModel
from engine.weights.shards import shards
from engine.weights.tensor_stream import TensorStream
from tools.benchmarks.parity.compare import Outcome, Weights

UPDATES = 3
LEARNING_RATE = 1e-2
EPS = 1e-3
"""Of Adam. With 1e-8 a weight whose gradient is nothing but rounding moves by a full step, and a
router that is near a tie then chooses another expert: both layouts would be right, and differ."""
SAMPLES = 24
TOKENS_PER_MICROBATCH = 96
MTP_LOSS_WEIGHT = 0.3


@dataclass
class ParityRow(RolloutRow):
    """One microbatch of either update; ``noise`` is float32 [tokens], 0 outside responses."""

    noise: Any = None


@dataclass(frozen=True)
class Sample:
    """A prompt, a response, and what GRPO knows of it; ``noise`` has one number a token."""

    prompt: list[int]
    response: list[int]
    advantage: float
    noise: list[float]


def three_updates(
    layout: LayoutConfig, model: dict[str, Any], kinds: Sequence[str], options: dict[str, Any]
) -> dict[str, Outcome]:
    """Three updates of each kind (``sft``, ``grpo``), each from the same first weights.

    Args:
        model: contents of a ``config.json``.
        options: further keys of the section ``training``.

    Returns:
        kind -> outcome; and under ``before`` the first weights, without losses.
    """
    outcomes: dict[str, Outcome] = {}
    training = TrainingConfig(
        dtype="float32",
        tokens_per_microbatch=TOKENS_PER_MICROBATCH,
        logits_chunk_tokens=40,
        mtp_loss_weight=MTP_LOSS_WEIGHT,
        **options,
    )
    for kind in kinds:
        policy = _policy(layout, model, training, kind)
        if not outcomes:
            outcomes["before"] = Outcome([], _weights(policy))
        rows = parity_rows(layout, training, make_samples(model["vocab_size"]), kind)
        if kind == "grpo":
            _score(policy, rows)
        tokens = sum(len(s.prompt) + len(s.response) - 1 for s in make_samples(model["vocab_size"]))
        metrics = [policy.update(rows, LOSSES[kind], tokens, LEARNING_RATE) for _ in range(UPDATES)]
        losses = [
            found[name] for name in ("loss", "mtp_loss") for found in metrics if name in found
        ]
        outcomes[kind] = Outcome(losses, _weights(policy))
        policy.close()
    return outcomes


def make_samples(words: int) -> list[Sample]:
    """Samples of very different lengths, the same in every process."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(4, 50, (SAMPLES,), generator=generator).tolist()
    samples = []
    for length in lengths:
        tokens = torch.randint(words, (length,), generator=generator).tolist()
        cut = int(torch.randint(1, length - 1, (1,), generator=generator))
        noise = (0.2 * torch.randn(length - cut, generator=generator)).tolist()
        advantage = float(torch.randn(1, generator=generator))
        samples.append(Sample(tokens[:cut], tokens[cut:], advantage, noise))
    return samples


def _policy(
    layout: LayoutConfig, model: dict[str, Any], training: TrainingConfig, kind: str
) -> TrainedModel:
    optimizer = OptimizerConfig(lr=LEARNING_RATE, eps=EPS)
    mtp: MtpMode = "isolated" if kind == "grpo" else "joint"
    head = TokenLogProbs(1.0, training.logits_chunk_tokens)
    policy = TrainedModel(model, layout, optimizer, training, head, mtp=mtp)
    initialise(policy)
    return policy


@torch.no_grad()
def initialise(policy: TrainedModel) -> None:
    """Give every tensor values that depend on its name alone, whoever holds which part of it."""
    for shard in shards(policy.chunks):
        seed = zlib.crc32(f"{shard.key}/{shard.expert}".encode())
        whole = torch.randn(shard.shape, generator=torch.Generator().manual_seed(seed))
        around = 1.0 if "norm" in shard.key and shard.key.endswith("weight") else 0.0
        whole = around + 0.15 * whole
        shard.data.copy_(whole[shard.place].reshape(shard.data.shape))
    policy.parameters_changed()


def parity_rows(
    layout: LayoutConfig, training: TrainingConfig, samples: list[Sample], kind: str
) -> list[ParityRow]:
    """This rank's packed rows of one minibatch, weighted as an update of ``kind`` weights them."""
    lengths = [len(sample.response) for sample in samples]
    weights = (
        token_mean_weights(lengths, sum(lengths))
        if kind == "sft"
        else sequence_mean_weights(lengths, len(samples))
    )
    (minibatch,) = build_minibatches(
        [(sample.prompt, sample.response) for sample in samples],
        weights,
        Packing.of(training, layout, data_rank(), data_ranks()),
        device=torch.cuda.current_device(),
    )
    return [
        ParityRow(
            row.packed,
            samples=[],
            advantages=row.packed.spread([samples[i].advantage for i in row.members]),
            weights=row.weights,
            noise=row.packed.scatter([samples[i].noise for i in row.members]),
        )
        for row in minibatch.rows
    ]


def _score(policy: TrainedModel, rows: list[ParityRow]) -> None:
    found = log_probabilities(policy.chunks, rows, policy.head)
    for row, logp in zip(rows, found or [], strict=False):
        row.old_logp, row.reference_logp = logp + row.noise, logp - row.noise


def _sft(outputs: TokenOutputs, row: ParityRow) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token_loss(outputs.logp, row.weights)


def _grpo(outputs: TokenOutputs, row: ParityRow) -> tuple[Tensor, dict[str, Tensor]]:
    return GRPO.loss(outputs.logp, outputs.entropy, row)


GRPO = Grpo(clip_low=0.2, clip_high=0.2, kl_coefficient=0.1)
LOSSES = {"sft": _sft, "grpo": _grpo}


def _weights(policy: TrainedModel) -> Weights | None:
    whole = TensorStream(policy.chunks).collect()
    return whole if dist.get_rank() == 0 else None
