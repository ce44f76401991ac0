"""Section ``evaluation``: measuring on held-out problems during a run."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class EvaluationConfig(Section):
    """How often, on how many held-out problems, and with which sampling."""

    every: int = Field(ge=1, description="steps between evaluations; the last step has one anyway")
    prompts: int = Field(ge=1, description="held-out problems asked")
    samples_per_prompt: int = Field(1, ge=1, description="answers to each; accuracy is their mean")
    temperature: float = Field(0.6, gt=0, description="of the sampling distribution")
    top_p: float = Field(
        0.95, gt=0, le=1, description="probability mass that is kept (nucleus sampling)"
    )
