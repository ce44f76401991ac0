"""The quickstart's base model, pre-trained on the spot: nothing has to be downloaded.

    python -m launchers.local recipes.base recipes/configs/quickstart/base.yaml [key=value ...]

RUN_DIR/model is the result, a Hugging Face folder, and RUN_DIR/prompts the problems for
reinforcement learning. Both are kept: a second start finds them made.
"""

from __future__ import annotations

import json
import os
import sys

from engine.config.process import Ports, Process
from engine.config.reader.command_line import read
from engine.errors import RunError, clear_errors
from recipes.base_config import BaseConfig

Config = BaseConfig

HOST = "127.0.0.1"


def processes(config: Config, ports: Ports) -> list[Process]:
    """The trainer ranks; none where the base is already made.

    Raises:
        RunError: the folder holds a base that another configuration made, or this machine cannot
            compute what the configuration asks for.
    """
    if is_made(config):
        return []
    from engine.models.transformer_config_args import check_machine

    check_machine(config.training)
    shared = {
        "R1_ROLE": "trainer",
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(next(ports)),
        "WORLD_SIZE": str(config.layout.processes),
    }
    command = (sys.executable, "-m", "recipes.base", str(config.run_dir / "config.yaml"))
    return [
        Process(
            name=f"trainer-{rank}",
            command=command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            console=rank == 0,
        )
        for rank in range(config.layout.processes)
    ]


def is_made(config: Config) -> bool:
    """Whether the base of this configuration is finished.

    Raises:
        RunError: another configuration's is.
    """
    if not config.result_file.is_file():
        return False
    made = json.loads(config.result_file.read_text())["config"]
    wanted = config.model_dump(mode="json")
    changes_nothing = {"run_dir", "data"}
    differing = [k for k in wanted if k not in changes_nothing and wanted[k] != made.get(k)]
    if differing:
        raise RunError(
            f"run_dir: {config.run_dir} holds a base made with another {', '.join(differing)}; "
            "choose another run_dir or remove that one"
        )
    return True


def main() -> None:
    """One trainer rank."""
    config = read(Config, "recipes.base")
    if os.environ.get("R1_ROLE") != "trainer":
        raise RunError("start a run with: python -m launchers.local recipes.base CONFIG")
    from engine.platform import accelerator

    accelerator.prepare(int(os.environ["LOCAL_RANK"]))
    from recipes import base_training  # imports megatron, so only now

    base_training.train(config)


if __name__ == "__main__":
    with clear_errors():
        main()
