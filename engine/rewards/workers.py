"""Pool of processes that judge answers, each of which can be killed at its deadline.

What a policy writes can keep a verifier busy for ever, eat the machine's memory or crash the
interpreter, and a time limit inside the same process (SIGALRM, a thread) does not stop a single
long call into C. So answers are judged in other processes, and the deadline is kept from outside:
SIGKILL, and a new process for the next answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import Any, Self

from engine.errors import RunError
from engine.rewards.score import CRASH, TIMEOUT, Score

log = logging.getLogger(__name__)

START_SECONDS = 60.0  # for an interpreter and the scorer's imports, on a machine that is busy


class WorkerPool:
    """Judges answers with one scorer module in ``workers`` processes, one answer at a time in each.

    An ``async with`` block starts the processes and leaves none behind. The pool belongs to the
    event loop in which it was entered.

    Args:
        module: name of a module with ``prepare()`` and ``score(response, reference) -> Score``;
            see :mod:`engine.rewards.worker`.
        workers: number of processes.
        deadline_seconds: wall-clock time for one answer, from the moment a prepared worker gets
            it; waiting for a free worker does not count.
        memory_bytes: address space of each process; an answer that needs more is a crash.
    """

    def __init__(
        self,
        module: str,
        *,
        workers: int,
        deadline_seconds: float,
        memory_bytes: int = 1 << 30,
    ) -> None:
        self._deadline_seconds = deadline_seconds
        self._workers = [_Worker(module, memory_bytes) for _ in range(workers)]
        self._free: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            starts = (worker.start() for worker in self._workers)
            for failure in await asyncio.gather(*starts, return_exceptions=True):
                if failure is not None:
                    raise failure
        except BaseException:
            await self.close()
            raise
        for worker in self._workers:
            self._free.put_nowait(worker)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill the processes and wait until they are gone; answers still waiting get an error."""
        self._closed = True
        await asyncio.gather(*(worker.kill() for worker in self._workers))

    async def score(self, response: str, reference: str) -> Score:
        """Judge one answer; call it as often at once as you like.

        Returns the scorer's verdict, ``timeout`` if it took longer than the deadline, or ``crash``
        if it raised or its process died.

        Raises:
            RunError: a worker could not be started again.
            RuntimeError: the pool is closed.
        """
        worker = await self._free.get()
        try:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            if not worker.alive:
                await worker.start()
            return await worker.judge(response, reference, self._deadline_seconds)
        finally:
            if self._closed:  # while this worker was being started
                await worker.kill()
            self._free.put_nowait(worker)


class _Worker:
    """One place of the pool: its process is started, given answers, killed, started again."""

    def __init__(self, module: str, memory_bytes: int) -> None:
        self._module = module
        self._memory_bytes = memory_bytes
        self._process: _Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and not self._process.ended

    async def start(self) -> None:
        """Start the process and wait until its scorer is prepared; RunError if it is not."""
        await self.kill()
        self._process = await _Process.start(self._module, self._memory_bytes)
        if not await self._reply(START_SECONDS):
            raise RunError(
                f"a reward worker for {self._module} did not become ready within"
                f" {START_SECONDS:.0f} s; what it printed is above"
            )

    async def judge(self, response: str, reference: str, deadline_seconds: float) -> Score:
        """Send one answer and return its verdict; afterwards the process may be dead."""
        assert self._process is not None
        job = {"response": response, "reference": reference}
        self._process.say(json.dumps(job).encode() + b"\n")
        line = await self._reply(deadline_seconds)
        if line is None:
            return TIMEOUT
        if not line.endswith(b"\n"):
            log.warning("a reward worker for %s died over an answer", self._module)
            return CRASH
        reply: dict[str, Any] = json.loads(line)
        if reply["seconds"] > deadline_seconds:  # the event loop itself was late to look
            return TIMEOUT
        if "error" in reply:
            log.warning("%s.score raised %s", self._module, reply["error"])
            return CRASH
        return Score(reply["value"], reply["outcome"])

    async def _reply(self, seconds: float) -> bytes | None:
        """Wait for a line of the process.

        Returns the line, what there is of it if the process ends, or None when the time is up.
        Then, as when the wait is cancelled, the process is killed: what it does is of no use.
        """
        assert self._process is not None
        line = self._process.line
        try:
            # asyncio.wait, unlike wait_for, sees a line that came in time while the loop was busy
            await asyncio.wait({line}, timeout=seconds)
            return line.result() if line.done() else None
        finally:
            if not line.done():
                await self.kill()

    async def kill(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        if self._process is not None:
            await self._process.kill()


class _Process(asyncio.SubprocessProtocol):
    """A running worker as the event loop sees it: it is told a line, and says a line.

    Attributes:
        line: done when there is a reply to the last job, or will never be a whole one.
        ended: the process is dead or about to be.
    """

    def __init__(self) -> None:
        self.line: asyncio.Future[bytes] = asyncio.Future()
        self.ended = False
        self._gone: asyncio.Future[None] = asyncio.Future()
        self._received = b""
        self._transport: asyncio.SubprocessTransport

    @classmethod
    async def start(cls, module: str, memory_bytes: int) -> _Process:
        """Start a worker; its first line says that it is prepared."""
        _, process = await asyncio.get_running_loop().subprocess_exec(
            cls,
            *(sys.executable, "-m", "engine.rewards.worker"),
            *(module, str(os.getpid()), str(memory_bytes)),
            stderr=None,  # ours
        )
        return process

    def say(self, line: bytes) -> None:
        """Send a job, and make ``line`` wait for the reply to it."""
        self.line = asyncio.Future()
        stdin = self._transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        stdin.write(line)

    async def kill(self) -> None:
        """Kill the process and wait until it is reaped and its pipes are closed.

        Several tasks may do so at once, and be cancelled meanwhile.
        """
        self.ended = True
        self._transport.close()
        await asyncio.wait({self._gone})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Complete ``line`` when its end has come (called by asyncio)."""
        self._received += data
        if data.endswith(b"\n"):
            self._complete_line()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Take the end of either pipe for the end of the process (called by asyncio)."""
        self.ended = True
        if fd == 1:  # nothing more will be read
            self._complete_line()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the process is reaped and its pipes are closed (called by asyncio)."""
        self._gone.set_result(None)

    def _complete_line(self) -> None:
        if not self.line.done():
            self.line.set_result(self._received)
        self._received = b""
