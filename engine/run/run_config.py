"""Keys that the configurations of all recipes share, and the rules between them."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from engine.config.inputs import ModelFolder, check_model_fits, inputs_wanted
from engine.config.layout import LayoutConfig
from engine.config.run_folder import RunFolder
from engine.config.section import Section
from engine.config.trainer import CheckpointConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import check_training_fits_layout


class RunConfig(Section):
    """A run that trains a model."""

    seed: int = Field(ge=0, lt=2**32, description="of every random choice of the run")
    run_dir: RunFolder = Field(description="the run's folder; a second start of it resumes the run")
    model: ModelFolder = Field(
        description="Hugging Face folder of the model that is trained, or the folder of a finished "
        "run, whose model is taken"
    )
    layout: LayoutConfig = Field(description="how trainer processes share model and data")
    training: TrainingConfig = Field(description="numbers and memory of the training passes")
    checkpoint: CheckpointConfig = Field(description="what a killed run goes on from")

    @field_validator("layout")
    @classmethod
    def _model_fits(cls, layout: LayoutConfig, info: ValidationInfo) -> LayoutConfig:
        if inputs_wanted(info) and "model" in info.data:
            check_model_fits(info.data["model"], layout)
        return layout

    @field_validator("training")
    @classmethod
    def _fits_layout(cls, training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        if "layout" in info.data:
            check_training_fits_layout(training, info.data["layout"])
        return training
