"""Start sampling servers on this machine with the command lines that a run uses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.errors import RunError
from engine.servers.client import connect
from engine.servers.command import ServerPlace, server_command
from launchers import log_tail
from launchers.failure import Death, sentence, with_words
from launchers.ports import HOST, LoopbackPorts

_LOG_LINES = 60  # of each server's log, where one did not start
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class LocalServer:
    """A server that can be started here: its name, its base URL and how it is started."""

    name: str
    url: str
    command: tuple[str, ...]
    env: Mapping[str, str]


def local_server(
    model: Path,
    name: str = "server-0",
    *,
    tp: int = 1,
    max_total_tokens: int,
    seed: int,
    devices: tuple[int, ...] = (),
    memory: float | None = None,
) -> LocalServer:
    """Describe a server on free ports of this machine; arguments as ``ServerPlace`` has them."""
    ports = LoopbackPorts()
    address, rendezvous = (f"{HOST}:{next(ports)}" for _ in range(2))
    place = ServerPlace(address, rendezvous, devices, memory)
    command, env = server_command(model, place, tp=tp, max_total_tokens=max_total_tokens, seed=seed)
    return LocalServer(name, f"http://{address}", command, env)


@dataclass(frozen=True)
class RunningServer:
    """A server that has been started."""

    name: str
    url: str
    process: psutil.Process
    """The HTTP process, parent of the others."""
    log: Path

    @property
    def scheduler(self) -> psutil.Process:
        """The server's scheduler process, which computes."""
        children = self.process.children(recursive=True)
        return next(c for c in children if c.name().startswith("sglang::sche"))


@contextmanager
def running(
    described: Sequence[LocalServer], folder: Path, limit_seconds: float
) -> Iterator[list[RunningServer]]:
    """Start the servers with logs in ``folder``, wait until they are healthy, kill them at the end.

    Raises:
        RunError: a server died while it started, with its last words; or one was not healthy within
            the limit. With the end of every server's log.
    """
    started: list[RunningServer] = []
    processes: list[subprocess.Popen[bytes]] = []
    begun = time.monotonic()
    try:
        for server in described:
            log = folder / f"{server.name}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    server.command,
                    env=os.environ | dict(server.env),
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            processes.append(process)
            running_process = psutil.Process(process.pid)
            started.append(RunningServer(server.name, server.url, running_process, log))
        try:
            asyncio.run(_healthy(started, processes, begun, limit_seconds))
        except RunError as error:
            raise RunError(f"{error}{_logs(started)}") from None
        yield started
    finally:
        for process in processes:
            with suppress(ProcessLookupError):  # it died by itself, with all of its children
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def urls(started: Sequence[RunningServer]) -> dict[str, str]:
    """Return name and base URL of each server, as clients take them."""
    return {server.name: server.url for server in started}


async def _healthy(
    started: Sequence[RunningServer],
    processes: Sequence[subprocess.Popen[bytes]],
    begun: float,
    limit_seconds: float,
) -> None:
    """Return when all servers are healthy; raise as soon as one of them is dead."""
    async with connect(urls(started), limit_seconds) as client:
        healthy = asyncio.create_task(client.wait_until_healthy(limit_seconds, lambda word: None))
        while not healthy.done():
            for server, process in zip(started, processes, strict=True):
                if (code := process.poll()) is not None:
                    healthy.cancel()
                    death = Death(server.name, True, code, time.monotonic() - begun)
                    raise RunError(sentence(with_words(death, log_tail.latest(server.log))))
            await asyncio.wait({healthy}, timeout=_LOOK_SECONDS)
        await healthy


def _logs(started: Sequence[RunningServer]) -> str:
    """Return the end of every server's log."""
    return "".join(
        "\n".join(["", f"--- {server.log}", *log_tail.tail(server.log, _LOG_LINES)])
        for server in started
    )
