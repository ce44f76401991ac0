"""Sections of the sampler process: prompts, rollouts, evaluations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.inputs import PromptFile
from engine.config.section import Seconds, Section

COLDEST = 1e-6
"""Temperature below which SGLang takes the likeliest token, and tells its log-probability at 1."""


class PromptsConfig(Section):
    """Prompt sets and the template around each problem."""

    train: PromptFile = Field(description="JSON lines file with the problems to learn from")
    held_out: PromptFile = Field(
        description="JSON lines file with the problems of the evaluation, none of them in train"
    )
    template: Literal["plain", "r1_zero"] = Field(
        description="text around a problem: plain adds nothing, r1_zero is DeepSeek-R1's table 1"
    )

    @field_validator("held_out")
    @classmethod
    def _is_another_file(cls, held_out: PromptFile, info: ValidationInfo) -> PromptFile:
        if held_out == info.data.get("train"):
            raise ValueError(f"expected another file than prompts.train, found {str(held_out)!r}")
        return held_out


class RolloutConfig(Section):
    """Size of a rollout, and how its answers are sampled."""

    prompts_per_step: int = Field(ge=1, description="prompts of one rollout")
    group_size: int = Field(
        ge=2, description="answers to each prompt; advantages compare them, so at least two"
    )
    max_new_tokens: int = Field(ge=1, description="longest answer in tokens; longer ones are cut")
    temperature: float = Field(
        1.0,
        ge=COLDEST,
        description="of the sampling distribution; training uses the same",
    )
    wait_seconds: Seconds = Field(
        600, description="limit in seconds of the trainer's wait for one finished rollout"
    )

    @property
    def samples_per_step(self) -> int:
        """Answers in one rollout."""
        return self.prompts_per_step * self.group_size


class EvaluationConfig(Section):
    """Interval, number of held-out problems and sampling of the evaluations."""

    every: int = Field(ge=1, description="steps between evaluations; the last step has one anyway")
    prompts: int = Field(ge=1, description="held-out problems asked")
    samples_per_prompt: int = Field(1, ge=1, description="answers to each; accuracy is their mean")
    temperature: float = Field(
        0.6,
        gt=0,
        description=f"of the sampling distribution; below {COLDEST:g} the likeliest token is taken",
    )
    top_p: float = Field(
        0.95, gt=0, le=1, description="probability mass that is kept (nucleus sampling)"
    )
