"""Supervised fine-tuning: learn the answers of conversations, packed, epoch after epoch.

    python -m recipes.sft CONFIG [key=value ...] --check          validate a configuration
    python -m launchers.local recipes.sft CONFIG [key=value ...]  run it on this machine

The cold start, the second SFT and the distillation of DeepSeek-R1 (arXiv 2501.12948 v2, supplement)
are configurations of it: recipes/configs/paper/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from engine.algorithms.next_token import next_token
from engine.config.sft_data import SftDataConfig, check_samples_fit_rows
from engine.config.trainer import LoadingConfig, OptimizerConfig
from engine.monitoring.metric_names import VALIDATION_LOSS
from engine.run.roles import Role, trainer
from engine.run.run_config import RunConfig
from engine.run.start import main

if TYPE_CHECKING:
    from engine.run.run import Run


class Config(RunConfig):
    """Supervised fine-tuning on conversations; the loss is of answers only."""

    data: SftDataConfig = Field(description="the conversations")
    epochs: int = Field(
        ge=1,
        description="how often each conversation is learned; what the last update still lacks is "
        "taken from one more epoch",
    )
    batch_size: int = Field(ge=1, description="samples of one update, on all ranks")
    optimizer: OptimizerConfig = Field(description="AdamW and its learning rate")
    validation_every: int = Field(
        100, ge=1, description="steps between measurements of the validation loss"
    )
    record_every: int = Field(1, ge=1, description="steps between two lines of console and metrics")
    loading: LoadingConfig = Field(LoadingConfig(), description="who reads batches ahead")

    @field_validator("data")
    @classmethod
    def _fits(cls, data: SftDataConfig, info: ValidationInfo) -> SftDataConfig:
        if "training" in info.data and "layout" in info.data:
            check_samples_fit_rows(data, info.data["training"], info.data["layout"])
        return data


def roles(config: Config) -> list[Role]:
    """Return what a run needs: trainer ranks."""
    return [trainer(config.layout, train)]


def train(run: Run[Config]) -> None:
    """Learn the answers in an order that is shuffled anew in every epoch."""
    config = run.config
    data = run.data.conversations(config.data, config.model)
    model = run.trained_model(config.optimizer)
    run.resume(model)
    total = run.data.last_step(data.train, config.epochs, config.batch_size)
    batches = run.data.shuffled(config.loading, data.train, config.batch_size)
    for step in run.steps(total, config.record_every):
        if data.validation is not None and step.number % config.validation_every == 0:
            step.measured(VALIDATION_LOSS, run.data.mean_loss(model, data.validation))
        batch, rate = next(batches), step.learning_rate(config.optimizer)
        update = model.update(batch.rows, next_token, batch.tokens, rate)
        step.log([update], batch.tokens, rate=rate)
    figures = {}
    if data.validation is not None:
        figures["validation_loss"] = run.data.mean_loss(model, data.validation)
        run.record.after_the_last(total, {VALIDATION_LOSS: figures["validation_loss"]})
        run.record.say(f"validation loss {figures['validation_loss']:.4f}")
    run.finish(model, total, figures, template=config.data.template)


if __name__ == "__main__":
    main("recipes.sft", Config, roles)
