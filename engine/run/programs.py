"""Programs of a run's processes, by role; each imports what it needs only when it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from engine.run.placement import CONTROL, HTTP, RENDEZVOUS, Placement


def run_trainer(config: Any, placement: Placement, train: Callable[[Any], None]) -> None:
    """Be one trainer rank: start the process groups, and call ``train``."""
    host, _, port = placement.address("trainer", RENDEZVOUS).rpartition(":")
    os.environ.update(
        {
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
            "RANK": str(placement.index),
            "WORLD_SIZE": str(placement.count),
            "LOCAL_RANK": str(placement.local_index),
        }
    )
    from engine.platform import accelerator

    accelerator.prepare(placement.devices[0] if placement.devices else placement.local_index)
    from engine.parallel.groups import process_groups  # these import megatron, so only now
    from engine.run.run import Run

    with process_groups(config.layout, config.seed), Run(config, placement) as run:
        train(run)


def become_server(config: Any, placement: Placement) -> None:
    """Replace this process by SGLang's server; the process id stays."""
    from engine.run.server_seed import server_seed
    from engine.servers.command import SHARED_MEMORY, ServerPlace, server_command

    command, environment = server_command(
        config.model,
        ServerPlace(
            address=placement.own_address(HTTP),
            rendezvous=placement.own_address(RENDEZVOUS),
            devices=placement.devices,
            memory=SHARED_MEMORY if placement.shares_devices else None,
        ),
        tp=config.servers.tp,
        max_total_tokens=config.servers.max_total_tokens,
        seed=server_seed(config.run_dir, config.seed, placement.index),
    )
    print(f"server-{placement.index}: {' '.join(command)}", flush=True)
    os.execve(command[0], command, {**os.environ, **environment})


def run_sampler(config: Any, placement: Placement) -> None:
    """Be the sampler: sample everything that the run's trainer will ask for."""
    import logging

    from engine.rollout.plan import SamplerPlan
    from engine.rollout.sampler import run_sampler as sample

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sample(
        SamplerPlan(
            run_dir=config.run_dir,
            model=config.model,
            seed=config.seed,
            steps=config.steps,
            server_urls=placement.urls("server", HTTP),
            control_address=placement.address("trainer", CONTROL),
            prompts=config.prompts,
            rollout=config.rollout,
            servers=config.servers,
            rewards=config.rewards,
            evaluation=config.evaluation,
        )
    )
