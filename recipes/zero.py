"""R1-Zero: reinforcement learning on a base model, no supervised fine-tuning before.

    python -m recipes.zero CONFIG [key=value ...] --check          validate a configuration
    python -m launchers.local recipes.zero CONFIG [key=value ...]  run it on this machine

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2. The algorithm is the configuration's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from engine.config.sampler import EvaluationConfig, PromptsConfig, RolloutConfig
from engine.config.servers import ServersConfig
from engine.config.trainer import MonitoringConfig, OptimizerConfig, ParityConfig, ReferenceConfig
from engine.rewards.table import RewardsConfig
from engine.run import rollout_rules
from engine.run.roles import Role, sampler, servers, trainer
from engine.run.run_config import RunConfig
from engine.run.sections import AlgorithmConfig
from engine.run.start import main

if TYPE_CHECKING:
    from engine.run.run import Run


class Config(RunConfig):
    """DeepSeek-R1-Zero: reinforcement learning on a base model, without supervised fine-tuning."""

    steps: int = Field(ge=1, description="training steps: one rollout and its updates each")
    optimizer: OptimizerConfig = Field(description="AdamW and its learning rate")
    prompts: PromptsConfig = Field(description="the problems that are asked")
    rollout: RolloutConfig = Field(description="the answers that are sampled for one step")
    servers: ServersConfig = Field(description="the SGLang servers that sample")
    rewards: RewardsConfig = Field(description="what an answer is rewarded for")
    algorithm: AlgorithmConfig = Field(description="how the policy learns from rewarded answers")
    minibatches: int = Field(
        1, ge=1, description="updates per rollout; each sees its own share of the samples"
    )
    reference: ReferenceConfig = Field(description="frozen copy of the policy, for the KL term")
    evaluation: EvaluationConfig = Field(description="measuring on held-out problems")
    parity: ParityConfig = Field(description="largest difference of trainer and sampler")
    monitoring: MonitoringConfig = Field(description="full samples shown in TensorBoard")

    @field_validator("rollout", "servers", "minibatches")
    @classmethod
    def _fits(cls, value: object, info: ValidationInfo) -> object:
        return rollout_rules.check(value, info)


def roles(config: Config) -> list[Role]:
    """Return what a run needs: servers, trainer ranks, one sampler."""
    return [servers(config.servers), trainer(config.layout, train), sampler()]


def train(run: Run[Config]) -> None:
    """Sample groups, reward them by rule, improve the policy."""
    config, algorithm = run.config, run.config.algorithm.chosen
    policy = run.trained_model(
        config.optimizer,
        temperature=config.rollout.temperature,
        mtp="isolated",  # the head follows the policy; what was sampled is no teacher for it
    )
    reference = run.reference(policy, config.reference) if algorithm.uses_reference else None
    run.resume(policy, reference)
    sampling = run.sampling(policy)
    for step in run.steps(config.steps):
        batch = sampling.batch(step, algorithm, config.minibatches)
        compared = batch.fill_old_logprobs(policy, config.parity.routing_tie)
        sampling.check_parity(compared, step)
        batch.fill_reference_logprobs(reference, policy)
        rate = step.learning_rate(config.optimizer)
        updates = batch.train(policy, rate)
        if reference is not None:
            reference.refresh_if_due(policy, version=step.number + 1)
        sampling.push(version=step.number + 1)
        sampling.log(step, batch, updates, rate)
    figures = sampling.finish(run.record)
    run.finish(policy, config.steps, figures, template=config.prompts.template)


if __name__ == "__main__":
    main("recipes.zero", Config, roles)
