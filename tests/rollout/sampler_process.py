"""A sampler process as a recipe would start it: ``python sampler_process.py PLAN.json``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from engine.config.sampler import EvaluationConfig, PromptsConfig, RolloutConfig
from engine.config.servers import ServersConfig
from engine.errors import clear_errors
from engine.rewards.table import RewardsConfig
from engine.rollout.plan import SamplerPlan
from engine.rollout.sampler import run_sampler

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    plan = json.loads(Path(sys.argv[1]).read_text())
    with clear_errors():
        run_sampler(
            SamplerPlan(
                run_dir=Path(plan["run_dir"]),
                model=Path(plan["model"]),
                seed=plan["seed"],
                steps=plan["steps"],
                server_urls=plan["server_urls"],
                control_address=plan["control_address"],
                prompts=PromptsConfig(**plan["prompts"]),
                rollout=RolloutConfig(**plan["rollout"]),
                servers=ServersConfig(**plan["servers"]),
                rewards=RewardsConfig.model_validate(plan["rewards"]),
                evaluation=EvaluationConfig(**plan["evaluation"]),
            )
        )
