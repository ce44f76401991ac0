"""Pool of trainer ranks that stay up and run one layout after another.

Importing torch and megatron takes a rank longer than a small training run. So one server process
imports them once, the ranks are forked from it, and each layout ("case") starts process groups of
its own among the first ranks. CUDA does not survive a fork: with a GPU each rank imports for
itself. More ranks than GPUs share them as :mod:`tools.benchmarks.shared_gpu` says.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from engine.config.layout import LayoutConfig
from engine.errors import RunError
from engine.platform import accelerator
from engine.platform.closing import Closing
from launchers.ports import HOST, LoopbackPorts
from tools.benchmarks.shared_gpu import nccl_settings

MEETING_SECONDS = 120.0
END_SECONDS = 5.0

Case = Callable[..., Any]
"""What each rank of a layout runs inside its process groups: ``case(layout, **arguments)``.

A function at the top level of a module that can be imported. Its result must be picklable; one that
is large should be returned by rank 0 alone.
"""


class RankPool(Closing):
    """Up to ``ranks`` processes, started on entering, ended on leaving."""

    def __init__(self, ranks: int, environment: Mapping[str, str] | None = None) -> None:
        """Args:
        ranks: how many processes.
        environment: variables for all of them.
        """
        self.ranks = ranks
        self._environment = dict(environment or {})
        self._processes: list[Any] = []
        self._lines: list[Connection] = []
        self._cases = 0

    def __enter__(self) -> RankPool:
        self._start()
        return self

    def close(self) -> None:
        """End the ranks; what a case still does is lost."""
        self._end()

    def run(
        self, case: Case, layout: LayoutConfig, limit_seconds: float = 240.0, **arguments: Any
    ) -> list[Any]:
        """Run ``case`` on every rank of ``layout``.

        Returns:
            What each rank's call returned, in the order of ranks.

        Raises:
            RunError: a rank failed (its traceback is the message), died, or did not answer in
                time. The pool starts its ranks anew and can go on.
        """
        if layout.processes > self.ranks:
            raise ValueError(f"{layout.processes} ranks wanted, the pool has {self.ranks}")
        self._cases += 1
        for line in self._lines[: layout.processes]:
            line.send((self._cases, case, layout, arguments))
        answers: dict[int, Any] = {}
        while len(answers) < layout.processes:
            waiting = [rank for rank in range(layout.processes) if rank not in answers]
            ready = wait([self._lines[rank] for rank in waiting], limit_seconds)
            if not ready:
                self._fail(f"ranks {waiting} of {layout!r} did not answer in {limit_seconds} s")
            for rank in (rank for rank in waiting if self._lines[rank] in ready):
                try:
                    answers[rank], error = self._lines[rank].recv()
                except (EOFError, ConnectionError):
                    error = "died"
                if error is not None:
                    self._fail(f"rank {rank} of {layout!r}: {error}")
        return [answers[rank] for rank in range(layout.processes)]

    def _fail(self, message: str) -> None:
        self._end(kill=True)
        self._start()
        raise RunError(message)

    def _start(self) -> None:
        gpu = accelerator.has_gpu()
        context: Any = get_context("spawn" if gpu else "forkserver")
        if not gpu:
            context.set_forkserver_preload([__name__, "tools.benchmarks.rank_imports"])
        shared = gpu and self.ranks > torch.cuda.device_count()
        port = next(LoopbackPorts())
        for rank in range(self.ranks):
            line, theirs = context.Pipe()
            variables = {
                **(nccl_settings(rank) if shared else {}),
                **self._environment,
                **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
            }
            process = context.Process(
                target=_serve, args=(rank, port, theirs, variables), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._lines.append(line)

    def _end(self, kill: bool = False) -> None:
        for line in self._lines:
            line.close()  # a rank that waits for a case leaves
        for process in self._processes:
            if kill:
                process.kill()
            process.join(END_SECONDS)
            process.kill()
        self._processes, self._lines = [], []


def _serve(rank: int, port: int, line: Connection, variables: dict[str, str]) -> None:
    """Wait for cases and run them until the pool closes the connection."""
    os.environ.update(variables)  # before anything looks for a GPU

    from tools.benchmarks import rank_imports  # megatron, once the platform is ready

    limit = timedelta(seconds=MEETING_SECONDS)
    # wait_for_workers: rank 0 would block until as many ranks as the first case has are there.
    store = rank_imports.TCPStore(
        HOST, port, None, rank == 0, timeout=limit, wait_for_workers=False
    )
    while True:
        try:
            number, case, layout, arguments = line.recv()
        except (EOFError, ConnectionError):
            return
        try:
            line.send((_run(number, case, layout, arguments, store), None))
        except BaseException:
            line.send((None, traceback.format_exc()))
            sys.exit(1)


def _run(
    number: int, case: Case, layout: LayoutConfig, arguments: dict[str, Any], store: Any
) -> Any:
    from tools.benchmarks import rank_imports

    os.environ["WORLD_SIZE"] = str(layout.processes)
    try:
        with rank_imports.process_groups(
            layout, seed=1, store=rank_imports.PrefixStore(f"case{number}", store)
        ):
            return case(layout, **arguments)
    finally:
        rank_imports.forget_models()
