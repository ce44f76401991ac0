"""The configuration of ``recipes.base``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from engine.config.layout import LayoutConfig
from engine.config.section import Section
from engine.config.trainer import CheckpointConfig, DataConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import check_training_fits_layout
from recipes.chain_task.corpus import CorpusConfig, Stage


class StageConfig(Section):
    """One stage of pre-training: a corpus and how long and how fast it is learned."""

    corpus: Stage = Field(description="which stream of documents")
    steps: int = Field(ge=1, description="optimizer updates")
    documents_per_step: int = Field(ge=1, description="documents of one update, on all ranks")
    optimizer: OptimizerConfig = Field(description="starts anew with the stage")


class GateConfig(Section):
    """What the base must be able to do before it is kept; see ``recipes.chain_task.gate``."""

    problems: int = Field(ge=1, description="held-out problems asked")
    min_probability: float = Field(
        ge=0, le=1, description="mean probability of a full trace's determined tokens"
    )


class PromptCounts(Section):
    """How many problems are written for reinforcement learning."""

    train: int = Field(20_000, ge=1, description="problems to learn from")
    held_out: int = Field(1_000, ge=1, description="problems of the evaluation")


class BaseConfig(Section):
    """Pre-training of the quickstart's base model."""

    seed: int = Field(ge=0, description="of initial weights, corpus and prompts")
    run_dir: Path = Field(description="folder of the run; the model appears in its model/")
    architecture: Path = Field(description="a Hugging Face config.json")
    layout: LayoutConfig
    training: TrainingConfig
    data: DataConfig = DataConfig()
    corpus: CorpusConfig = CorpusConfig()
    stages: list[StageConfig] = Field(min_length=1, description="one after the other")
    gate: GateConfig
    prompts: PromptCounts = PromptCounts()
    checkpoint: CheckpointConfig

    @field_validator("training")
    @classmethod
    def _levers_fit(cls, training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        if "layout" in info.data:
            check_training_fits_layout(training, info.data["layout"])
        return training

    @field_validator("stages")
    @classmethod
    def _weights_outlive_stages(
        cls, stages: list[StageConfig], info: ValidationInfo
    ) -> list[StageConfig]:
        training = info.data.get("training")
        if len(stages) > 1 and training is not None and training.fp8_parameters:
            raise ValueError(
                "expected one stage where training.fp8_parameters is true: the next stage's "
                f"masters would start from rounded weights; found {len(stages)}"
            )
        return stages

    @property
    def result_file(self) -> Path:
        """Written last: what the base can do, and the configuration that made it."""
        return self.run_dir / "base.json"

    @property
    def steps(self) -> int:
        """Updates of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[StageConfig, int]:
        """The stage that update ``step`` belongs to, and the update's number within it."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError(f"the run has {self.steps} steps")
