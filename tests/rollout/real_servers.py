"""Two real CPU servers for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.rollout.server import servers
from tools.benchmarks.local_servers import FreePorts, RunningServer, running

START_SECONDS = 240  # a start takes 10 s of CPU time; other tests may run beside it


@contextmanager
def two_servers(model: Path, folder: Path) -> Iterator[list[RunningServer]]:
    described = servers(
        model, FreePorts(), count=2, port=0, tp=1, max_total_tokens=32768, gpu=False, seed=3
    )
    with running(described, folder, START_SECONDS) as started:
        yield started
