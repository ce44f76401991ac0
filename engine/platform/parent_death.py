"""End a child process when its parent ends, and adopt orphaned descendants: Linux's prctl(2).

The end of a pipe alone would not reach a child that is busy, perhaps for ever.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: not between fork and exec


def die_with_parent(parent: int, signum: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process ``signum`` when its parent ends, however that ends.

    To be called by the child, after ``fork``; it survives ``exec`` but not a further ``fork``.

    Args:
        parent: the parent's process id, which the parent has told: it may have ended already. This
            process then gets ``signum`` at once.
        signum: SIGKILL ends this process wherever it is.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it ended before the request: no signal will come
        os.kill(os.getpid(), signum)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process from now on (not inherited by fork).

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
