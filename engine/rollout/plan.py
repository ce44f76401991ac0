"""What a sampler has to know of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.config.sampler import EvaluationConfig, PromptsConfig, RolloutConfig
from engine.config.servers import ServersConfig
from engine.rewards.table import RewardsConfig


@dataclass(frozen=True)
class SamplerPlan:
    """What a sampler has to know of a run."""

    run_dir: Path
    model: Path  # a Hugging Face folder; the tokenizer is read from it
    seed: int  # of the order of the prompts
    steps: int  # rollouts 0 .. steps - 1, and an evaluation of version `steps`
    server_urls: Mapping[str, str]  # name -> base URL
    control_address: str  # host:port, see engine.rollout.control
    prompts: PromptsConfig
    rollout: RolloutConfig
    servers: ServersConfig
    rewards: RewardsConfig
    evaluation: EvaluationConfig
