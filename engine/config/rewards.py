"""Section ``rewards``: what an answer is rewarded for; a sample's reward is the weighted sum."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class AccuracyRewardConfig(Section):
    """Is the answer right? Decided by killable workers, because verifiers can hang."""

    weight: float = Field(ge=0, description="factor of this reward in the sum")
    deadline_seconds: float = Field(
        5.0, gt=0, description="a verification is killed after this many seconds: outcome timeout"
    )
    workers: int = Field(2, ge=1, description="verifying processes")


class FormatRewardConfig(Section):
    """Is the answer ``<think>...</think><answer>...</answer>``, and nothing else?"""

    weight: float = Field(ge=0, description="factor of this reward in the sum")


class RewardsConfig(Section):
    """The rewards of R1-Zero: accuracy and format, with equal weight in the paper."""

    accuracy: AccuracyRewardConfig = Field(description="the final answer equals the reference")
    format: FormatRewardConfig = Field(description="thinking and answer stand in their tags")
