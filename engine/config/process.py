"""What the processes of a run are: recipes list them, launchers start them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Process:
    """One process of a run."""

    name: str
    """For example ``trainer-0``; its log is RUN_DIR/logs/<name>.log."""
    command: tuple[str, ...]
    """The full argument vector; its first element is the interpreter."""
    env: Mapping[str, str]
    """Added to the launcher's own environment."""
    console: bool = False
    """Standard output is the terminal's; standard error still goes to the log."""
    service: bool = False
    """Runs until it is stopped (a server); any other process must end with exit status 0."""


class Ports(Iterator[int], Protocol):
    """Free TCP ports on 127.0.0.1, none of them twice; RunError when none is found.

    Launchers provide it: ``launchers.ports.LoopbackPorts``.
    """

    def claim(self, port: int, key: str) -> int:
        """The fixed ``port`` that configuration ``key`` asks for.

        Raises RunError, naming key, port and holder, when it is in use.
        """
        ...
