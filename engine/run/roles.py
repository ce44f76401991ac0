"""Roles of a run: what a recipe needs, without machines, ports or command lines.

A recipe lists roles; a launcher decides on which machines, devices and ports their processes live
and how they are started. Every process runs ``python -m RECIPE RUN_DIR/config.yaml`` with its
:class:`~engine.run.placement.Placement` in the environment, and does what its role's program says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.config.layout import LayoutConfig
from engine.config.servers import ServersConfig
from engine.run.placement import CONTROL, HTTP, RENDEZVOUS, Placement

Program = Callable[[Any, Placement], None]
"""What a process does: (the run's configuration, its placement) -> None when it is done."""


@dataclass(frozen=True)
class Port:
    """A TCP port that processes of a role listen on.

    Attributes:
        name: what it is for, e.g. ``http``.
        first_only: only the role's first process listens.
        number: the first process's port, the next one's follows it; 0 for any free ones.
        key: the configuration key that asks for ``number``, for messages.
    """

    name: str
    first_only: bool = False
    number: int = 0
    key: str = ""


@dataclass(frozen=True)
class Role:
    """Some processes of a run that do the same.

    Attributes:
        name: its processes are called ``name-0``, ``name-1``, ...
        program: what each of them does.
        count: how many there are.
        gpus: how many GPUs each of them computes on; none are given on a machine without GPUs.
        shares_gpus_with: the role whose GPUs they take, instead of GPUs of their own.
        sharing_key: the configuration key that would make them share, for messages.
        ports: what they listen on.
        service: they run until they are stopped; others must end with exit status 0.
        console: the first one's standard output is the terminal's.
    """

    name: str
    program: Program
    count: int = 1
    gpus: int = 0
    shares_gpus_with: str | None = None
    sharing_key: str = ""
    ports: tuple[Port, ...] = ()
    service: bool = False
    console: bool = False


def trainer(layout: LayoutConfig, train: Callable[[Any], None]) -> Role:
    """Return the trainer ranks of ``layout``, each of which calls ``train`` with its ``Run``."""

    def program(config: Any, placement: Placement) -> None:
        from engine.run.programs import run_trainer

        run_trainer(config, placement, train)

    return Role(
        "trainer",
        program,
        count=layout.processes,
        gpus=1,
        ports=(Port(RENDEZVOUS, first_only=True), Port(CONTROL, first_only=True)),
        console=True,
    )


def servers(config: ServersConfig) -> Role:
    """Return the SGLang servers of a run; it has the keys ``model``, ``servers`` and ``seed``."""

    def program(config: Any, placement: Placement) -> None:
        from engine.run.programs import become_server

        become_server(config, placement)

    return Role(
        "server",
        program,
        count=config.count,
        gpus=config.tp,
        shares_gpus_with="trainer" if config.share_gpus else None,
        sharing_key="servers.share_gpus",
        ports=(Port(HTTP, number=config.port, key="servers.port"), Port(RENDEZVOUS)),
        service=True,
    )


def sampler() -> Role:
    """Return the one process that asks the servers for groups and has them rewarded.

    The run's configuration has the keys ``model``, ``seed``, ``steps``, ``prompts``, ``rollout``,
    ``servers``, ``rewards`` and ``evaluation``.
    """

    def program(config: Any, placement: Placement) -> None:
        from engine.run.programs import run_sampler

        run_sampler(config, placement)

    return Role("sampler", program)
