"""The configuration of ``recipes.zero``: its sections, and the rules between them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from engine.config.grpo import GrpoConfig
from engine.config.inputs import ModelFolder, check_model_fits, inputs_wanted
from engine.config.layout import LayoutConfig
from engine.config.sampler import EvaluationConfig, PromptsConfig, RewardsConfig, RolloutConfig
from engine.config.section import Section
from engine.config.servers import ServersConfig
from engine.config.trainer import CheckpointConfig, MonitoringConfig, OptimizerConfig, ParityConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import check_training_fits_layout


class ZeroConfig(Section):
    """DeepSeek-R1-Zero: reinforcement learning on a base model, without supervised fine-tuning."""

    seed: int = Field(ge=0, description="of every random choice of the run")
    run_dir: Path = Field(description="the run's folder; a second start of it resumes the run")
    model: ModelFolder = Field(description="Hugging Face folder of the base model")
    steps: int = Field(ge=1, description="training steps: one rollout and one weight update each")
    layout: LayoutConfig = Field(description="how trainer processes share model and data")
    training: TrainingConfig = Field(description="numbers and memory of the training passes")
    optimizer: OptimizerConfig = Field(description="AdamW and its learning rate")
    prompts: PromptsConfig = Field(description="the problems that are asked")
    rollout: RolloutConfig = Field(description="the answers that are sampled for one step")
    servers: ServersConfig = Field(description="the SGLang servers that sample")
    rewards: RewardsConfig = Field(description="what an answer is rewarded for")
    grpo: GrpoConfig = Field(description="coefficients of the loss, renewal of the reference")
    evaluation: EvaluationConfig = Field(description="measuring on held-out problems")
    parity: ParityConfig = Field(description="trainer and sampler must mean the same model")
    checkpoint: CheckpointConfig = Field(description="what a killed run goes on from")
    monitoring: MonitoringConfig = Field(description="full samples shown in TensorBoard")

    @field_validator("layout")
    @classmethod
    def _model_fits(cls, layout: LayoutConfig, info: ValidationInfo) -> LayoutConfig:
        if inputs_wanted(info) and "model" in info.data:
            check_model_fits(info.data["model"], layout)
        return layout

    @field_validator("training")
    @classmethod
    def _levers_fit(cls, training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        if "layout" in info.data:
            check_training_fits_layout(training, info.data["layout"])
        return training

    @field_validator("rollout")
    @classmethod
    def _sample_fits_a_microbatch(
        cls, rollout: RolloutConfig, info: ValidationInfo
    ) -> RolloutConfig:
        training = info.data.get("training")
        if training is not None and rollout.max_new_tokens >= training.tokens_per_microbatch:
            raise ValueError(
                "expected max_new_tokens below training.tokens_per_microbatch = "
                f"{training.tokens_per_microbatch} (a sample is never cut), found "
                f"{rollout.max_new_tokens}"
            )
        return rollout

    @field_validator("servers")
    @classmethod
    def _sample_fits_a_server(cls, servers: ServersConfig, info: ValidationInfo) -> ServersConfig:
        rollout = info.data.get("rollout")
        if rollout is not None and servers.max_total_tokens <= rollout.max_new_tokens:
            raise ValueError(
                "expected max_total_tokens above rollout.max_new_tokens = "
                f"{rollout.max_new_tokens}, found {servers.max_total_tokens}"
            )
        return servers

    @field_validator("grpo")
    @classmethod
    def _minibatches_are_equal(cls, grpo: GrpoConfig, info: ValidationInfo) -> GrpoConfig:
        rollout = info.data.get("rollout")
        if rollout is not None and rollout.samples_per_step % grpo.minibatches:
            raise ValueError(
                "expected minibatches to divide rollout.prompts_per_step * rollout.group_size = "
                f"{rollout.samples_per_step}, found {grpo.minibatches}; nearest possible: "
                f"{_nearest_divisor(rollout.samples_per_step, grpo.minibatches)}"
            )
        return grpo


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = [size for size in range(1, number + 1) if number % size == 0]
    return min(divisors, key=lambda size: abs(size - wanted))
