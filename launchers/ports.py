"""Find free TCP ports of 127.0.0.1 for a run's processes."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from engine.errors import RunError

HOST = "127.0.0.1"
"""A server has no key: only this machine may talk to it."""

_LOWEST = 15_000
_ATTEMPTS = 1_000


class LoopbackPorts(Iterator[int]):
    """Yields free ports, never the same one twice; implements ``launchers.placing.Ports``.

    Free ports are drawn from below the range that the kernel takes for outgoing connections: a
    server may need half a minute before it listens, and meanwhile any connection of any process
    could have been given a port of that range. Drawn at random, so that two runs that start at the
    same time do not meet.
    """

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._random = random.SystemRandom()
        self._end = _first_ephemeral_port()

    def __next__(self) -> int:
        for _ in range(_ATTEMPTS):
            port = self._random.randrange(_LOWEST, self._end)
            if port not in self._given and _is_free(port):
                self._given.add(port)
                return port
        raise RunError(
            f"no free TCP port found on {HOST} between {_LOWEST} and {self._end} "
            f"in {_ATTEMPTS} attempts"
        )

    def claim(self, port: int, key: str) -> int:
        """Reserve the fixed ``port`` that configuration ``key`` asks for, and return it.

        Raises RunError when this run has given it away already or another process listens on it.
        """
        if port in self._given:
            raise RunError(f"{key}: port {port} is asked for twice in this run")
        require_free(port, key)
        self._given.add(port)
        return port


def require_free(port: int, key: str) -> None:
    """Raise RunError, naming the holder where it can be seen, unless ``port`` can be listened on.

    ``key`` is the configuration key that asks for the port.
    """
    if _is_free(port):
        return
    raise RunError(
        f"{key}: port {port} on {HOST} is already in use by {_holder(port)}; "
        "stop that process or choose another port (0 takes any free one)"
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as servers do: connections in TIME_WAIT from an earlier run do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """Return who listens on ``port``: "pid 123 (name)", or a word for what may not be seen."""
    try:
        connections = psutil.net_connections(kind="tcp")
        for connection in connections:
            if connection.laddr and connection.laddr.port == port and connection.pid is not None:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass  # the process has just ended, or belongs to another user
    return "another process (of another user, or just ending)"


def _first_ephemeral_port() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        first = int(text.split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768  # Linux's default
    # a machine that gives nearly all ports to outgoing connections leaves no room below them
    return first if first > _LOWEST + 2 * _ATTEMPTS else 32_768
