"""One process as the supervisor starts it: its name, its command and its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
