"""The quickstart's base model, pre-trained on the spot: nothing has to be downloaded.

    python -m launchers.local recipes.base recipes/configs/quickstart/base.yaml [key=value ...]

RUN_DIR/model is the result, a Hugging Face folder, and RUN_DIR/prompts the problems for
reinforcement learning. Both are kept: a second start makes nothing again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, field_validator

from engine.algorithms.next_token import next_token
from engine.config.inputs import ModelConfigFile
from engine.config.trainer import LoadingConfig
from engine.run.roles import Role, trainer
from engine.run.run_config import RunConfig
from engine.run.start import main
from engine.run.step import scheduled_rate
from recipes.chain_task.corpus import Corpus, CorpusConfig
from recipes.chain_task.gate import GateConfig, pass_gate
from recipes.chain_task.prompt_sets import PromptCounts, write_prompt_sets
from recipes.chain_task.stages import StageConfig, stage_of
from recipes.chain_task.vocabulary import model_source

if TYPE_CHECKING:
    from engine.run.run import Run


class Config(RunConfig):
    """Pre-training of the quickstart's base model."""

    model: ModelConfigFile = Field(description="a Hugging Face config.json; weights are drawn")
    loading: LoadingConfig = Field(LoadingConfig(), description="who reads batches ahead")
    corpus: CorpusConfig = CorpusConfig()
    stages: list[StageConfig] = Field(min_length=1, description="one after the other")
    gate: GateConfig
    prompts: PromptCounts = PromptCounts()

    @field_validator("stages")
    @classmethod
    def _weights_outlive_stages(cls, stages: list[Any], info: ValidationInfo) -> list[Any]:
        training = info.data.get("training")
        if len(stages) > 1 and training is not None and training.fp8_parameters:
            raise ValueError(
                "expected one stage where training.fp8_parameters is true: the next stage's "
                f"masters would start from rounded weights; found {len(stages)}"
            )
        return stages


def roles(config: Config) -> list[Role]:
    """Return what a run needs: trainer ranks."""
    return [trainer(config.layout, train)]


def train(run: Run[Config]) -> None:
    """Next-token training, stage after stage; then the gate, the model and the prompt sets."""
    config, first = run.config, run.first_step
    total = sum(stage.steps for stage in config.stages)
    stage, _ = stage_of(config.stages, max(0, first - 1))
    model = run.trained_model(stage.optimizer, source=model_source(config.model, config.run_dir))
    run.resume(model)
    for step in run.steps(total, record_every=25):
        stage, update = stage_of(config.stages, step.number)
        if update == 0 or step.number == first:
            corpus = Corpus(config.corpus, stage.corpus, seed=config.seed)
            batches = run.data.batches(
                config.loading, stage.corpus, corpus, stage.documents_per_step, step.number
            )
        if update == 0 and step.number:  # the same weights under a fresh optimizer
            model.restart_optimizer(stage.optimizer)
        batch = next(batches)
        rate = scheduled_rate(stage.optimizer, update, stage.steps)
        updates = [model.update(batch.rows, next_token, batch.tokens, rate)]
        step.log(updates, batch.tokens, rate=rate)
    probability = pass_gate(run, model, config.gate, config.corpus.problems)
    if run.is_first_rank:
        write_prompt_sets(
            config.run_dir / "prompts",
            config.corpus.problems,
            train=config.prompts.train,
            held_out=config.prompts.held_out,
            seed=config.seed,
        )
    run.finish(model, total, {"gate_probability": probability}, template="plain")


if __name__ == "__main__":
    main("recipes.base", Config, roles)
