"""Section ``rollout``: the answers that are sampled for one training step."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class RolloutConfig(Section):
    """Size of a rollout and how its answers are drawn."""

    prompts_per_step: int = Field(ge=1, description="prompts of one rollout")
    group_size: int = Field(
        ge=2, description="answers to each prompt; advantages compare them, so at least two"
    )
    max_new_tokens: int = Field(ge=1, description="longest answer in tokens; longer ones are cut")
    temperature: float = Field(
        1.0, gt=0, description="of the sampling distribution; training uses the same"
    )
    wait_seconds: float = Field(
        600, gt=0, description="limit in seconds of the trainer's wait for one finished rollout"
    )

    @property
    def samples_per_step(self) -> int:
        """Answers in one rollout."""
        return self.prompts_per_step * self.group_size
