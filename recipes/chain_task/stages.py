"""Stages of the base's pre-training: what each learns from, how long and how fast."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from engine.config.section import Section
from engine.config.trainer import OptimizerConfig
from recipes.chain_task.corpus import Stage


class StageConfig(Section):
    """One stage of pre-training: a corpus and how long and how fast it is learned."""

    corpus: Stage = Field(description="which stream of documents")
    steps: int = Field(ge=1, description="optimizer updates")
    documents_per_step: int = Field(ge=1, description="documents of one update, on all ranks")
    optimizer: OptimizerConfig = Field(description="starts anew with the stage")


def stage_of(stages: Sequence[StageConfig], step: int) -> tuple[StageConfig, int]:
    """Return the stage that update ``step``, from 0, belongs to, and its number within it."""
    for stage in stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise IndexError(f"no stage has {step} more steps")
