"""Section ``data`` of supervised fine-tuning: conversations, and how they become samples."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.inputs import RecordFile
from engine.config.layout import LayoutConfig
from engine.config.section import Seconds, Section
from engine.config.training import TrainingConfig


class SftDataConfig(Section):
    """Conversations to learn from: where they are, how they become text, what is too long."""

    format: Literal["auto", "chat", "prompt_response"] = Field(
        "auto",
        description="keys of a record: chat has messages (role, content), prompt_response has "
        "prompt and response; auto: what each file's first record has",
    )
    train: tuple[RecordFile, ...] = Field(description="JSON lines or Parquet files to learn from")
    validation: tuple[RecordFile, ...] = Field(
        (), description="files whose loss is measured and never learned; none of them in train"
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training conversations held back for validation instead, chosen "
        "by a hash of the first question: answers to the same question stay together",
    )
    template: Literal["model", "plain", "r1_zero"] = Field(
        "model",
        description="text around a conversation: model is the model's own chat template; plain "
        "adds nothing to a question, r1_zero is DeepSeek-R1's table 1 (both: one question each)",
    )
    max_tokens: int = Field(ge=2, description="longest sample, prompt and answer together")
    too_long: Literal["error", "drop"] = Field(
        "error", description="longer samples: error names them and stops, drop counts them"
    )
    wait_seconds: Seconds = Field(
        3600.0, description="limit on the other ranks' wait while rank 0 tokenizes"
    )

    @field_validator("train")
    @classmethod
    def _is_not_empty(cls, train: tuple[Path, ...]) -> tuple[Path, ...]:
        if not train:
            raise ValueError("expected at least one file, found none")
        return train

    @field_validator("validation")
    @classmethod
    def _are_other_files(
        cls, validation: tuple[Path, ...], info: ValidationInfo
    ) -> tuple[Path, ...]:
        for file in validation:
            if file in info.data.get("train", ()):
                raise ValueError(f"expected other files than data.train has, found {str(file)!r}")
        return validation

    @field_validator("validation_share")
    @classmethod
    def _stands_for_files(cls, share: float, info: ValidationInfo) -> float:
        if share and info.data.get("validation"):
            raise ValueError(f"expected 0 where validation names files, found {share:g}")
        return share


def check_samples_fit_rows(
    data: SftDataConfig, training: TrainingConfig, layout: LayoutConfig
) -> None:
    """Pass silently if the longest allowed sample fits a row.

    Raises:
        ValueError: it does not; says which ``max_tokens`` would.
    """
    multiple, room = layout.sample_multiple, training.tokens_per_microbatch
    if -(-(data.max_tokens - 1) // multiple) * multiple > room:
        raise ValueError(
            f"expected at most {room // multiple * multiple + 1}, where "
            f"training.tokens_per_microbatch is {room}; found {data.max_tokens}"
        )
