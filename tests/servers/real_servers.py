"""Real CPU servers for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.servers.command import Server, servers
from tools.benchmarks.local_servers import FreePorts, RunningServer, running

START_SECONDS = 240  # a start takes 10 s of CPU time; other tests may run beside it


@contextmanager
def real_servers(model: Path, folder: Path, tp: tuple[int, ...]) -> Iterator[list[RunningServer]]:
    """Start server-0, server-1, ..., each with its tensor-parallel size."""
    described = [_server(model, f"server-{i}", size) for i, size in enumerate(tp)]
    with running(described, folder, START_SECONDS) as started:
        yield started


def _server(model: Path, name: str, tp: int) -> Server:
    (described,) = servers(
        model, FreePorts(), count=1, port=0, tp=tp, max_total_tokens=32768, gpus=None, seed=3
    )
    return replace(described, name=name)
