"""Placement of one process of a run: its role, its devices, the addresses of the others.

A launcher writes it into the environment of every process that it starts (``R1_PLACEMENT``, JSON);
the process reads it once, at its start. Nothing else passes between launchers and processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from engine.errors import RunError

VARIABLE = "R1_PLACEMENT"

RENDEZVOUS, CONTROL, HTTP = "rendezvous", "control", "http"
"""Names of ports: where ranks find each other; the control store; a server's requests."""


@dataclass(frozen=True)
class Placement:
    """One process's place in a run.

    Attributes:
        recipe: module of the run's recipe.
        role: name of its role, e.g. ``trainer``.
        index: which of the role's processes it is, from 0.
        count: how many the role has.
        local_index: which of the role's processes on this machine it is, from 0.
        devices: numbers of the GPUs of this machine that it computes on; none on a CPU.
        shares_devices: whether another role computes on them, too.
        addresses: ``role/port`` -> ``host:port`` of each process of the role that has that port.
    """

    recipe: str
    role: str
    index: int = 0
    count: int = 1
    local_index: int = 0
    devices: tuple[int, ...] = ()
    shares_devices: bool = False
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Placement | None:
        """Return what the launcher has written; None where no launcher started this process."""
        if not (text := os.environ.get(VARIABLE)):
            return None
        found = json.loads(text)
        addresses = {port: tuple(each) for port, each in found.pop("addresses").items()}
        return cls(**{**found, "devices": tuple(found["devices"]), "addresses": addresses})

    def as_environment(self) -> dict[str, str]:
        """Return the variable that :meth:`from_environment` reads."""
        return {VARIABLE: json.dumps(asdict(self))}

    def addresses_of(self, role: str, port: str) -> tuple[str, ...]:
        """Return ``host:port`` of every process of ``role`` that listens on its ``port``.

        Raises:
            RunError: the launcher has placed no such port.
        """
        if not (found := self.addresses.get(f"{role}/{port}")):
            raise RunError(
                f"{VARIABLE} names no address of {role}/{port}: the launcher placed none"
            )
        return found

    def address(self, role: str, port: str) -> str:
        """Return ``host:port`` of the role's first process; raises as :meth:`addresses_of`."""
        return self.addresses_of(role, port)[0]

    def own_address(self, port: str) -> str:
        """Return where this process is to listen; raises as :meth:`addresses_of`."""
        return self.addresses_of(self.role, port)[self.index]

    def urls(self, role: str, port: str) -> dict[str, str]:
        """Return the base URL of each process of ``role`` by its name, ``server-0``."""
        found = self.addresses_of(role, port)
        return {f"{role}-{index}": f"http://{address}" for index, address in enumerate(found)}
