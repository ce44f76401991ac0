"""Real SGLang servers for tests, started by the command lines that a run uses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.rollout.client import connect
from engine.rollout.server import servers
from launchers.ports import LoopbackPorts

START_SECONDS = 240  # a start takes 10 s of CPU time; other tests may run beside it


@dataclass(frozen=True)
class RealServer:
    name: str
    url: str
    process: psutil.Process
    """The HTTP process."""
    log: Path

    @property
    def scheduler(self) -> psutil.Process:
        """The process that computes."""
        children = self.process.children(recursive=True)
        return next(c for c in children if c.name().startswith("sglang::sche"))


@contextmanager
def running_servers(model: Path, folder: Path, count: int) -> Iterator[list[RealServer]]:
    """Start ``count`` CPU servers, wait until they are healthy, and kill them in the end."""
    described = servers(
        model, LoopbackPorts(), count=count, port=0, tp=1, max_total_tokens=32768, gpu=False, seed=3
    )
    started = []
    popen = []
    try:
        for server in described:
            log = folder / f"{server.name}.log"
            with log.open("w") as out:
                process = subprocess.Popen(
                    server.process.command,
                    env=os.environ | dict(server.process.env),
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            popen.append(process)
            started.append(RealServer(server.name, server.url, psutil.Process(process.pid), log))
        asyncio.run(_healthy(started))
        yield started
    finally:
        for process in popen:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _healthy(started: list[RealServer]) -> None:
    async with connect(urls(started), request_seconds=60) as client:
        try:
            await client.wait_until_healthy(START_SECONDS, print)
        except Exception:
            for server in started:
                print(f"---- {server.name}\n{server.log.read_text(errors='replace')[-5000:]}")
            raise


def urls(started: list[RealServer]) -> dict[str, str]:
    return {server.name: server.url for server in started}
