"""R1-Zero's sampler process; ``recipes/zero.py`` starts it."""

from __future__ import annotations

import logging

from engine.rollout.control import control_address
from engine.rollout.sampler import SamplerPlan, run_sampler
from engine.servers.command import server_urls
from recipes.zero_config import ZeroConfig


def main(config: ZeroConfig) -> None:
    """Entry of the sampler process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run_sampler(
        SamplerPlan(
            run_dir=config.run_dir,
            model=config.model,
            seed=config.seed,
            steps=config.steps,
            server_urls=server_urls(),
            control_address=control_address(),
            prompts=config.prompts,
            rollout=config.rollout,
            servers=config.servers,
            rewards=config.rewards,
            evaluation=config.evaluation,
        )
    )
