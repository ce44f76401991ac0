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
from engine.config.section import Section
from engine.config.trainer import LoadingConfig, OptimizerConfig
from engine.errors import RunError
from engine.run.roles import Role, trainer
from engine.run.run_config import RunConfig
from engine.run.start import main
from engine.run.step import scheduled_rate
from recipes.chain_task.corpus import Corpus, CorpusConfig, Stage
from recipes.chain_task.gate import GateConfig, gate_probability
from recipes.chain_task.prompt_sets import PromptCounts, write_prompt_sets
from recipes.chain_task.vocabulary import model_source

if TYPE_CHECKING:
    from engine.run.run import Run


class StageConfig(Section):
    """One stage of pre-training: a corpus and how long and how fast it is learned."""

    corpus: Stage = Field(description="which stream of documents")
    steps: int = Field(ge=1, description="optimizer updates")
    documents_per_step: int = Field(ge=1, description="documents of one update, on all ranks")
    optimizer: OptimizerConfig = Field(description="starts anew with the stage")


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

    @property
    def steps(self) -> int:
        """Updates of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[StageConfig, int]:
        """Return the stage that update ``step`` belongs to, and the update's number within it."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError(f"the run has {self.steps} steps")


def roles(config: Config) -> list[Role]:
    """Return what a run needs: trainer ranks."""
    return [trainer(config.layout, train)]


def train(run: Run[Config]) -> None:
    """Next-token training, stage after stage; then the gate, the model and the prompt sets."""
    config, first = run.config, run.first_step
    stage, _ = config.at(max(0, first - 1))
    model = run.trained_model(stage.optimizer, source=model_source(config.model, config.run_dir))
    run.resume(model)
    for step in run.steps(config.steps, record_every=25):
        stage, update = config.at(step.number)
        if update == 0 or step.number == first:
            corpus = Corpus(config.corpus, stage.corpus, seed=config.seed)
            documents = stage.documents_per_step
            batches = run.data.batches(
                config.loading, corpus, documents, position=update * documents
            )
        if update == 0 and step.number:  # the same weights under a fresh optimizer
            model.restart_optimizer(stage.optimizer)
        batch = next(batches)
        rate = scheduled_rate(stage.optimizer, update, stage.steps)
        updates = [model.update(batch.rows, next_token, batch.tokens, rate)]
        step.log(updates, batch.tokens, rate=rate)
    probability = gate_probability(run, model, config.gate, config.corpus.problems)
    if probability < config.gate.min_probability:
        raise RunError(
            f"gate.min_probability: the base gets through a full trace with probability "
            f"{probability:.3f}, {config.gate.min_probability} is asked; give its first stage more "
            f"steps, or take another seed, in another run_dir"
        )
    if run.is_first_rank:
        write_prompt_sets(
            config.run_dir / "prompts",
            config.corpus.problems,
            train=config.prompts.train,
            held_out=config.prompts.held_out,
            seed=config.seed,
        )
    run.record.say(f"probability of a full trace, the gate: {probability:.3f}")
    figures = {"gate_probability": probability}
    run.finish(model, config.steps, figures, template="plain")


if __name__ == "__main__":
    main("recipes.base", Config, roles)
