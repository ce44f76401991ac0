"""Names of a run's metrics, for metrics.jsonl, TensorBoard, console and report alike.

A name is also a TensorBoard tag; what stands before the slash groups the charts. Metrics of a loss
function are ``training/`` + the key that the function returned. Rewards are known by the names that
occur: whatever shows them asks :func:`reward_names`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

STEP = "step"  # the training step; an evaluation's is the version of the weights it looked at

# Means over the samples of a rollout
REWARD_PREFIX = "reward/"  # + name: mean value of that reward before weighting
REWARD_MEAN = "reward/mean"  # the weighted sum that the policy is trained on
OUTCOME_PREFIX = "outcome/"  # + name / outcome of that reward: share of samples
RESPONSE_LENGTH = "rollout/response_length"  # tokens
RESPONSE_TOKENS = "rollout/tokens"  # tokens of all responses
TRUNCATED = "rollout/truncated"  # share of samples that ran into the token limit
REPLAYED = "rollout/replayed"  # 1 where an earlier start had sampled it: such a step has no speed
REFLECTION = "rollout/reflection"  # share of samples with a word of second thought ("wait")
ZERO_VARIANCE_GROUPS = "rollout/zero_variance_groups"  # share of groups

# Means over the updates of a step
TRAINING_PREFIX = "training/"
LOSS = "training/loss"
POLICY_LOSS = "training/policy_loss"
KL = "training/kl"  # nats, k3, policy against reference
ENTROPY = "training/entropy"  # nats
RATIO = "training/ratio"
CLIP_FRACTION = "training/clip_fraction"
GRADIENT_NORM = "training/gradient_norm"  # before clipping
SKIPPED_MINIBATCHES = "training/skipped_minibatches"  # spikes, since the run began; only where
# optimizer.skip_spikes is set
LEARNING_RATE = "training/learning_rate"
VALIDATION_LOSS = "validation/loss"  # nats per response token, of samples that are never learned
MAX_LOGPROB_DIFFERENCE = "parity/max_logprob_difference"  # nats, trainer against sampler
BEHIND_ROUTING_TIES = "parity/behind_routing_ties"  # share of tokens that are not compared
EXPERT_IMBALANCE_PREFIX = "experts/imbalance/"  # + layer: largest load / mean load, 1 is balanced

# Held-out problems
EVALUATION_PREFIX = "evaluation/"  # + name: share of answers that this reward finds right; of one
# that grades, the mean value
EVALUATION_RESPONSE_LENGTH = "evaluation/response_length"  # tokens

# Where the time went
SECONDS_PREFIX = "seconds/"  # + phase; the phases of a step add up to its seconds
SAMPLING_SECONDS = "speed/sampling_seconds"  # of the rollout, first request to last score
START_SECONDS = "speed/start_seconds"  # from the push to the first request, no evaluation between
DELIVERY_SECONDS = (
    "speed/delivery_seconds"  # from the last score to the trainer that has the rollout
)
STEP_SECONDS = "speed/seconds_per_step"
TOKENS_PER_SECOND = "speed/tokens_per_second"  # response tokens per second of the whole step

# How well the trainer's GPUs were used (mfu.py); absent without one, and where its peak is unknown
TRAINED_TOKENS_PER_GPU = "speed/trained_tokens_per_second_per_gpu"  # of the updates alone
MFU_UPDATE = "speed/mfu_update"  # of the updates alone
MFU_STEP = "speed/mfu_step"  # of the whole step, scoring passes counted, waiting included


NO_REWARDS = frozenset({REWARD_MEAN, EVALUATION_RESPONSE_LENGTH})
"""Metrics whose prefix is that of rewards although they are none."""


def reward(name: str) -> str:
    """Return the metric of a reward's mean value over a rollout."""
    return REWARD_PREFIX + name


def outcome(name: str, outcome: str) -> str:
    """Return the metric of the share of a rollout's samples with this outcome of a reward."""
    return f"{OUTCOME_PREFIX}{name}/{outcome}"


def evaluation(name: str) -> str:
    """Return the metric of what a reward says of the answers to held-out problems."""
    return EVALUATION_PREFIX + name


def reward_names(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the rewards in lines of metrics.jsonl, in the order they first occur."""
    found: dict[str, None] = {}
    for line in lines:
        for metric in line:
            for prefix in (REWARD_PREFIX, EVALUATION_PREFIX):
                if metric.startswith(prefix) and metric not in NO_REWARDS:
                    found[metric.removeprefix(prefix)] = None
    return list(found)


def heading(name: str) -> str:
    """Return a reward's name as a heading has it: ``Accuracy``; a module's name stays as it is."""
    return name if "." in name else name.replace("_", " ").capitalize()


def with_prefix(scalars: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what stands behind ``prefix`` in the names that have it, with their values."""
    return {
        name.removeprefix(prefix): value
        for name, value in scalars.items()
        if name.startswith(prefix)
    }
