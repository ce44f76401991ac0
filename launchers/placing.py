"""Place a run's roles on this machine: ports of 127.0.0.1, GPUs, and the processes to start."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from engine.errors import RunError
from engine.run.placement import Placement
from engine.run.roles import Port, Role
from launchers.ports import HOST
from launchers.process import Process


class Ports(Iterator[int], Protocol):
    """Free ports; implemented by :class:`launchers.ports.LoopbackPorts`."""

    def claim(self, port: int, key: str) -> int:
        """Take the fixed ``port`` that configuration ``key`` asks for; RunError when in use."""
        ...


def place(
    recipe: str, config_file: Path, roles: Sequence[Role], ports: Ports, gpus: int
) -> list[Process]:
    """Return the processes of ``roles``, in their order.

    Args:
        recipe: module that every process runs.
        config_file: the run's resolved configuration.
        ports: where free ports come from; fixed ones are claimed there, too.
        gpus: GPUs of this machine, 0 for none: then everything computes on the CPU.

    Raises:
        RunError: there are too few GPUs, or a port is in use.
    """
    first_gpu = _first_gpus(roles, gpus)
    addresses = {
        f"{role.name}/{port.name}": _addresses(role, port, ports)
        for role in roles
        for port in role.ports
    }
    command = (sys.executable, "-m", recipe, str(config_file))
    return [
        Process(
            name=f"{role.name}-{index}",
            command=command,
            env=Placement(
                recipe=recipe,
                role=role.name,
                index=index,
                count=role.count,
                local_index=index,
                devices=_devices(role, index, first_gpu[role.name]) if gpus else (),
                shares_devices=_shares(role, roles),
                addresses=addresses,
            ).as_environment(),
            console=role.console and index == 0,
            service=role.service,
        )
        for role in roles
        for index in range(role.count)
    ]


def _addresses(role: Role, port: Port, ports: Ports) -> tuple[str, ...]:
    count = 1 if port.first_only else role.count
    numbers = (
        ports.claim(port.number + index, port.key) if port.number else next(ports)
        for index in range(count)
    )
    return tuple(f"{HOST}:{number}" for number in numbers)


def _devices(role: Role, index: int, first: int) -> tuple[int, ...]:
    begin = first + index * role.gpus
    return tuple(range(begin, begin + role.gpus))


def _shares(role: Role, roles: Sequence[Role]) -> bool:
    """Return whether another role computes on the GPUs of ``role``, too."""
    others = {other.shares_gpus_with for other in roles}
    return role.shares_gpus_with is not None or role.name in others


def _first_gpus(roles: Sequence[Role], available: int) -> dict[str, int]:
    """Return the first GPU of each role: trainers get the first ones, then the others in order.

    A role whose GPUs others share is given as many as the largest of them needs.
    """
    owners = [role for role in roles if role.shares_gpus_with is None]
    sharing = [role for role in roles if role.shares_gpus_with is not None]
    named = {role.name for role in owners}
    for role in sharing:
        if role.shares_gpus_with not in named:
            raise RunError(f"role {role.name}: no role {role.shares_gpus_with} has GPUs to share")
    first: dict[str, int] = {}
    needed = 0
    for role in sorted(owners, key=lambda role: role.name != "trainer"):
        first[role.name] = needed
        together = [role, *(other for other in sharing if other.shares_gpus_with == role.name)]
        needed += max(each.count * each.gpus for each in together)
    first |= {role.name: first[str(role.shares_gpus_with)] for role in sharing}
    if available and needed > available:
        raise RunError(_too_few(roles, needed, available))
    return first


def _too_few(roles: Sequence[Role], needed: int, available: int) -> str:
    asked = ", ".join(f"{role.name} {role.count} x {role.gpus}" for role in roles if role.gpus)
    alone = max(role.count * role.gpus for role in roles)
    keys = [role.sharing_key for role in roles if role.sharing_key and not role.shares_gpus_with]
    instead = f"; {keys[0]}=true puts both on the same" if keys and alone <= available else ""
    return f"the run needs {needed} GPUs ({asked}), found {available}{instead}"
