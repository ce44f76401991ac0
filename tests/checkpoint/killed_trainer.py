"""Trainer ranks of ``recipes.base`` as processes that can be killed and started again in no time.

They are forked from the server that also forks the ranks of the pool, and so find torch and
megatron imported.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import randrange

from tools.benchmarks import rank_pool


def start(config: dict, ready: Callable[[], None] | None = None) -> list[BaseProcess]:
    """The ranks of the run that ``config`` describes; each calls ``ready`` before it trains."""
    context = get_context("forkserver")
    context.set_forkserver_preload([rank_pool.__name__, "tools.benchmarks.rank_imports"])
    run_dir, port, count = Path(config["run_dir"]), _port(), config["layout"]["processes"]
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.yaml").write_text(json.dumps(config))  # YAML too
    ranks = [
        context.Process(target=_train, args=(rank, count, port, run_dir, ready))
        for rank in range(count)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def _train(
    rank: int, count: int, port: int, run_dir: Path, ready: Callable[[], None] | None
) -> None:
    log = os.open(run_dir / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from tools.benchmarks import rank_imports  # isort: skip  # noqa: F401  (readies the platform)

    from engine.config.reader.loading import load
    from engine.errors import clear_errors
    from engine.run.placement import Placement
    from engine.run.programs import run_trainer
    from recipes.base import Config, train

    placement = Placement(
        recipe="recipes.base",
        role="trainer",
        index=rank,
        count=count,
        local_index=rank,
        addresses={"trainer/rendezvous": (f"127.0.0.1:{port}",)},
    )
    if ready is not None:
        ready()
    with clear_errors():
        run_trainer(load(Config, run_dir / "config.yaml"), placement, train)
    sys.stdout.flush()


def _port() -> int:
    """A free port of a range from which the kernel gives none to connections."""
    while True:
        port = randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
