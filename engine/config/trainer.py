"""Sections of the trainer: optimizer, data loading, checkpoints, parity gate, monitoring."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import Seconds, Section

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101), gradient clipping and schedule."""

    lr: float = Field(gt=0, description="learning rate after the warm-up")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.95), description="decay of the running means of the gradient and of its square"
    )
    eps: float = Field(1e-8, gt=0, description="added to the root of the mean square")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay, times lr, per update")
    clip_grad: float = Field(
        1.0, gt=0, description="the gradient is scaled down to this global norm"
    )
    skip_spikes: float | None = Field(
        None,
        gt=1,
        description="a minibatch is skipped whose gradient norm is more than so many times the "
        "median of the last 64, once there are 16; null: none is",
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate climbs to lr")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="course of the rate after the warm-up, down to min_lr at the end"
    )
    min_lr: float = Field(0.0, ge=0, description="where linear and cosine end")

    @field_validator("min_lr")
    @classmethod
    def _is_below_the_peak(cls, min_lr: float, info: ValidationInfo) -> float:
        lr = info.data.get("lr")
        if lr is not None and min_lr > lr:
            raise ValueError(f"expected at most lr = {lr:g}, found {min_lr:g}")
        return min_lr


class LoadingConfig(Section):
    """Loader and prefetching of batches; changes no batch, only how long one waits."""

    loader: Literal["plain", "dali"] = Field(
        "plain",
        description="plain: a thread of the trainer; dali: NVIDIA DALI with a process of its own",
    )
    prefetch: int = Field(2, ge=1, description="batches made ready ahead of the one in use")


class CheckpointConfig(Section):
    """Interval of checkpoints, how many stay, and how they are written."""

    every: int = Field(ge=1, description="steps between checkpoints; the last step has one anyway")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay on disk")
    asynchronous: bool = Field(
        True, description="train on while a child process of each rank writes its files"
    )
    write_seconds: Seconds = Field(
        3600.0, description="limit on writing one checkpoint, after which the run stops"
    )


class ReferenceConfig(Section):
    """The reference model of the KL term: a frozen copy of the policy."""

    refresh_steps: int = Field(
        ge=1, description="the reference becomes the current policy after this many steps"
    )
    offload: bool = Field(
        False,
        description="keep the reference's parameters in host memory; they are copied to the device "
        "for its pass over the rollout, once a step, and freed after it",
    )


class ParityConfig(Section):
    """The gate on the difference between the trainer's and the sampler's log-probabilities."""

    max_logprob_difference: float = Field(
        gt=0, description="largest difference of any token, in nats; above it the run stops"
    )
    routing_tie: float = Field(
        1.0e-4,
        ge=0,
        description="margin of router scores below which experts are tied: rounding then decides "
        "between them, and that token and the rest of its sample are not compared",
    )


class MonitoringConfig(Section):
    """Full samples as text in TensorBoard."""

    samples_every: int = Field(ge=1, description="steps between samples shown as text")
    samples: int = Field(ge=0, description="samples shown each time")
