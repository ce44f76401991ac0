"""R1-Zero: reinforcement learning on a base model, no supervised fine-tuning before.

    python -m recipes.zero CONFIG [key=value ...] --check          validate a configuration
    python -m launchers.local recipes.zero CONFIG [key=value ...]  run it on this machine

Source: DeepSeek-R1 (arXiv 2501.12948), section 2.2; the loop is in ``recipes/zero_training.py``.
"""

from __future__ import annotations

import json
import os
import sys

from engine.config.process import Ports, Process
from engine.config.reader.command_line import read
from engine.errors import RunError, clear_errors
from recipes.zero_config import ZeroConfig

Config = ZeroConfig

HOST = "127.0.0.1"


def processes(config: Config, ports: Ports) -> list[Process]:
    """The run's processes on one machine: trainer ranks, servers, one sampler.

    Raises:
        RunError: this machine cannot compute what the configuration asks for.
    """
    import torch

    from engine.models.transformer_config_args import check_machine
    from engine.platform.accelerator import has_gpu
    from engine.servers.command import SERVERS_VARIABLE, servers
    from engine.servers.placement import gpus_of_servers

    check_machine(config.training)
    wanted, share = config.servers.count * config.servers.tp, config.servers.share_gpus
    gpus = None
    if has_gpu():
        available = torch.cuda.device_count()
        gpus = gpus_of_servers(config.layout.processes, wanted, available, share=share)
    servers_of_run = servers(
        config.model,
        ports,
        count=config.servers.count,
        port=config.servers.port,
        tp=config.servers.tp,
        max_total_tokens=config.servers.max_total_tokens,
        gpus=gpus,
        seed=config.seed,
    )
    urls = {server.name: server.url for server in servers_of_run}
    shared = {
        "R1_CONTROL": f"{HOST}:{next(ports)}",
        SERVERS_VARIABLE: json.dumps(urls),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(next(ports)),
        "WORLD_SIZE": str(config.layout.processes),
        # A store that closes when a run ends is no news; torch would print C++ stack traces.
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    command = (sys.executable, "-m", "recipes.zero", str(config.run_dir / "config.yaml"))
    trainers = [
        Process(
            name=f"trainer-{rank}",
            command=command,
            env={**shared, "R1_ROLE": "trainer", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            console=rank == 0,
        )
        for rank in range(config.layout.processes)
    ]
    sampler = Process("sampler", command, {**shared, "R1_ROLE": "sampler"})
    return [*(server.process for server in servers_of_run), *trainers, sampler]


def main() -> None:
    """One process of the run, by ``R1_ROLE``; without it, the command line above."""
    config = read(Config, "recipes.zero")
    role = os.environ.get("R1_ROLE")
    if role == "trainer":
        from engine.platform import accelerator

        accelerator.prepare(int(os.environ["LOCAL_RANK"]))
        from recipes import zero_training  # imports megatron, so only now

        zero_training.train(config)
    elif role == "sampler":
        from recipes import zero_sampling

        zero_sampling.main(config)
    else:
        raise RunError("start a run with: python -m launchers.local recipes.zero CONFIG")


if __name__ == "__main__":
    with clear_errors():
        main()
