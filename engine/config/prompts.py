"""Section ``prompts``: the problems that are asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.inputs import PromptFile
from engine.config.section import Section


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
