"""A recipe whose configuration lists what its processes do; see ``toy_process``."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from engine.config.process import Ports, Process


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run_dir: Path
    seed: int = 1
    port: int = 0
    work: dict[str, str] = {}
    services: dict[str, str] = {}


def processes(config: Config, ports: Ports) -> list[Process]:
    if config.port:
        ports.claim(config.port, "port")
    program = str(Path(__file__).with_name("toy_process.py"))
    return [
        Process(name, (sys.executable, program, *does.split()), env={}, service=is_service)
        for part, is_service in ((config.work, False), (config.services, True))
        for name, does in part.items()
    ]
