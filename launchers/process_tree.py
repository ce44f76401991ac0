"""Process trees on Linux: whose children die with whom, and how a whole tree is ended.

A process group does not hold a tree: SGLang's scheduler processes, torch's workers and anything
else that calls ``setsid`` leave it. A *child subreaper* (``prctl(2)``) does: whatever its
descendants do, when their parents die they become the subreaper's own children, so none is lost.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: not between fork and exec


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process (not inherited by fork)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, signum: signal.Signals) -> None:
    """Have the kernel send this process ``signum`` when ``parent``, its parent's pid, ends.

    To be called by the child, after ``fork``; it survives ``exec`` but not a further ``fork``.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # the parent ended before the request: no signal will come
        os.kill(os.getpid(), signum)


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

    Repeats, because a tree may grow while it is being felled. Gives up after ``limit`` seconds and
    returns what is still there, as "name (pid n)": a process in an uninterruptible system call.
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


def out_of_memory_kills() -> int:
    """How often the kernel has killed a process for want of memory since this machine started.

    0 where it does not say.
    """
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
