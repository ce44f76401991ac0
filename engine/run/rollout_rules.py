"""Rules between the sections of a recipe that samples: lengths, caches, minibatches."""

from __future__ import annotations

from pydantic import ValidationInfo

from engine.config.sampler import RolloutConfig
from engine.config.servers import ServersConfig


def check(value: object, info: ValidationInfo) -> object:
    """Return ``value``, of the key ``rollout``, ``servers`` or ``minibatches``, if it fits.

    For use in a field validator: keys that stand before it are in ``info.data``.

    Raises:
        ValueError: it does not; says what was expected.
    """
    if isinstance(value, RolloutConfig):
        _sample_fits_a_microbatch(value, info)
    elif isinstance(value, ServersConfig):
        _sample_fits_a_server(value, info)
    elif isinstance(value, int):
        _minibatches_are_equal(value, info)
    return value


def _sample_fits_a_microbatch(rollout: RolloutConfig, info: ValidationInfo) -> None:
    training = info.data.get("training")
    if training is not None and rollout.max_new_tokens >= training.tokens_per_microbatch:
        raise ValueError(
            "expected max_new_tokens below training.tokens_per_microbatch = "
            f"{training.tokens_per_microbatch} (a sample is never cut), found "
            f"{rollout.max_new_tokens}"
        )


def _sample_fits_a_server(servers: ServersConfig, info: ValidationInfo) -> None:
    rollout = info.data.get("rollout")
    if rollout is not None and servers.max_total_tokens <= rollout.max_new_tokens:
        raise ValueError(
            "expected max_total_tokens above rollout.max_new_tokens = "
            f"{rollout.max_new_tokens}, found {servers.max_total_tokens}"
        )


def _minibatches_are_equal(minibatches: int, info: ValidationInfo) -> None:
    rollout = info.data.get("rollout")
    if rollout is not None and rollout.samples_per_step % minibatches:
        raise ValueError(
            "expected a divisor of rollout.prompts_per_step * rollout.group_size = "
            f"{rollout.samples_per_step}, found {minibatches}; nearest possible: "
            f"{_nearest_divisor(rollout.samples_per_step, minibatches)}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = [size for size in range(1, number + 1) if number % size == 0]
    return min(divisors, key=lambda size: abs(size - wanted))
