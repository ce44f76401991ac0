"""Reap and kill all descendants of a process on Linux, whatever process groups they are in.

A process group does not hold a tree: SGLang's scheduler processes, torch's workers and anything
else that calls ``setsid`` leave it. A child subreaper (``engine.platform.parent_death``) does: when
parents of its descendants die, these become the subreaper's own children, so none is lost.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def reap(ended: Callable[[int, int], None]) -> None:
    """Collect every child that has ended; call ``ended(pid, code)`` for each.

    ``code`` is the exit status, or minus the number of the signal that killed it.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended(pid, os.waitstatus_to_exitcode(status))


def kill_descendants(ended: Callable[[int, int], None], limit: float) -> list[str]:
    """SIGKILL every descendant of this process, a subreaper, until none is left.

    Repeats, because descendants may start further processes meanwhile. Gives up after ``limit``
    seconds and returns those still there, as "name (pid n)": processes in an uninterruptible
    system call.
    """
    me = psutil.Process()
    deadline = time.monotonic() + limit
    while True:
        reap(ended)
        alive = me.children(recursive=True)
        if not alive or time.monotonic() > deadline:
            return [_describe(process) for process in alive]
        for process in alive:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.name()} (pid {process.pid})"
    except psutil.Error:
        return f"pid {process.pid}"


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9; "signal 40" for a real-time signal, which has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
