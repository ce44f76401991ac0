"""Section ``optimizer``: AdamW and its learning rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import Section

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
