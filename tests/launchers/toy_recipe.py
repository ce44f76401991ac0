"""A recipe whose configuration lists what its roles' processes do; see ``toy_process``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from toy_process import act

from engine.config.run_folder import RunFolder
from engine.run.placement import Placement
from engine.run.roles import Port, Role
from engine.run.start import main


class Config(BaseModel):
    """Role -> what its processes do, one after the other."""

    model_config = ConfigDict(extra="forbid")
    run_dir: RunFolder
    seed: int = 1
    steps: int = 9
    port: int = 0
    work: dict[str, list[str]] = {}
    services: dict[str, list[str]] = {}


def roles(config: Config) -> list[Role]:
    def program(config: Config, placement: Placement) -> None:
        does = {**config.work, **config.services}[placement.role][placement.index]
        act(*does.split())

    ports = (Port("http", number=config.port, key="port"),) if config.port else ()
    return [
        Role(name, program, count=len(each), service=name in config.services, ports=ports)
        for part in (config.work, config.services)
        for name, each in part.items()
    ]


if __name__ == "__main__":
    main("toy_recipe", Config, roles)
