"""Run a function in a forked child process while this process goes on, and collect its outcome.

Why fork: the child sees this process's memory as it was at the moment of the fork, so a checkpoint
of tensors in host memory needs no copy of them, and neither the interpreter lock nor the trainer
waits for the disk. megatron's ``TemporalAsyncCaller`` forks for the same reasons; its
``PersistentAsyncCaller`` spawns one process and shares the tensors with it, so that on a CPU the
next update would change what is still being written.

What a fork of a process with gloo, NCCL and CUDA threads demands: only the forking thread lives on
in the child. So the child touches no collective, no CUDA and no thread pool: it writes files,
hashes them, and leaves through ``os._exit``. It keeps copies of the parent's sockets open, and
therefore dies with its parent: otherwise the other ranks would not notice that their peer is gone.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Generic, NoReturn, TypeVar

from engine.platform.parent_death import die_with_parent

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """The function returned ``value``."""

    value: T


@dataclass(frozen=True)
class Failed:
    """The function did not return; ``reason`` is a clause for the user."""

    reason: str


def run_here(function: Callable[[], T]) -> Done[T] | Failed:
    """Call ``function`` in this process and return its outcome."""
    try:
        return Done(function())
    except Exception as error:
        return Failed(reason(error))


class ForkedWriter(Generic[T]):
    """A function running in a forked child, and its outcome.

    Attributes:
        pid: the child's process id; 0 once it has been collected.
    """

    def __init__(self, function: Callable[[], T], limit_seconds: float) -> None:
        """Start the child. A failed start is an outcome, not an exception.

        Args:
            function: returns something that can be pickled; see above for what it must not touch.
            limit_seconds: the child is killed, and has failed, when it takes longer.
        """
        self._started, self._limit = time.monotonic(), limit_seconds
        self._outcome: Done[T] | Failed | None = None
        self._answers, answers = Pipe(duplex=False)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            self.pid = _fork(lambda: _run_child(function, answers, parent))
        except OSError as error:
            self.pid = 0
            self._outcome = Failed(f"no process for writing can be started ({error.strerror})")
        answers.close()

    def outcome(self) -> Done[T] | Failed | None:
        """Return the function's outcome; None while it runs. Does not block."""
        if self._outcome is None:
            self._outcome = self._look()
            if self._outcome is not None:
                self.kill()
        return self._outcome

    def kill(self) -> None:
        """Kill the child, if it still runs, and collect it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # cannot hit another: the pid is ours until collected
            self._collect()

    def _collect(self) -> int:
        """Wait for the child's end and return its exit code, or minus the signal's number."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _look(self) -> Done[T] | Failed | None:
        if self._answers.poll():
            try:
                answer: Done[T] | Failed = self._answers.recv()
            except (EOFError, OSError):  # it left without a word, or in the middle of one
                return Failed(f"the writing process {_ending(self._collect())}")
            return answer
        if time.monotonic() - self._started > self._limit:
            return Failed(f"the writing process was not done after {self._limit:g} s")
        return None


def _fork(child: Callable[[], NoReturn]) -> int:
    """Fork a child that calls ``child`` and never collects garbage.

    Its garbage is the parent's, perhaps tensors on a GPU, which must not be freed from here.

    Returns:
        The child's process id.

    Raises:
        OSError: there is no room for another process.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        pid = os.fork()
        if pid == 0:
            child()
        return pid
    finally:
        if collects:
            gc.enable()


def _run_child(function: Callable[[], T], answers: Connection, parent: int) -> NoReturn:
    """Send the outcome of ``function`` and exit; never return into the copy of the trainer."""
    code = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
        answers.send(run_here(function))
        code = 0
    finally:
        os._exit(code)


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def reason(error: BaseException) -> str:
    """Return the cause of ``error`` as a clause: an OSError inside tells more than its wrapper."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror + (f" ({cause.filename})" if cause.filename else "")
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
