"""Table of the rewards that a configuration can name, and its section ``rewards``.

A new reward is a file and a line here; one of a person's own is named by its module, see
:mod:`engine.config.choice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from engine.config.choice import Choices
from engine.rewards.reward import Reward

REWARDS = {
    "accuracy": "engine.rewards.accuracy",
    "format": "engine.rewards.format",
    "language": "engine.rewards.language",
}


class RewardsConfig(Choices):
    """What an answer is rewarded for: each reward by name, with its weight and its options."""

    table: ClassVar[Mapping[str, str]] = REWARDS
    attribute: ClassVar[str] = "REWARD"
    chosen: dict[str, Reward] = Field(description="the rewards, in the order of the section")
