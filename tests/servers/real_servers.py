"""Real CPU servers for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.benchmarks.local_servers import RunningServer, local_server, running

START_SECONDS = 240  # a start takes 10 s of CPU time; other tests may run beside it


@contextmanager
def real_servers(model: Path, folder: Path, tp: tuple[int, ...]) -> Iterator[list[RunningServer]]:
    """Start server-0, server-1, ..., each with its tensor-parallel size."""
    described = [
        local_server(model, f"server-{i}", tp=size, max_total_tokens=32768, seed=3)
        for i, size in enumerate(tp)
    ]
    with running(described, folder, START_SECONDS) as started:
        yield started
