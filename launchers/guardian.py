"""Run a launcher as two processes, each of which cleans up if the other is killed.

The process that the user started becomes the guardian. It forks the supervisor, which starts and
watches the run in a session of its own, and from then on only passes signals on. Both are child
subreapers:

- the supervisor is killed: the kernel kills its direct children with it, deeper descendants become
  the guardian's children, and the guardian kills them;
- the guardian is killed: the kernel tells the supervisor by ``GUARDIAN_DIED``, which ends the run
  at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Never

from engine.platform.parent_death import become_subreaper, die_with_parent
from launchers import process_tree
from launchers.process_tree import signal_name

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
GUARDIAN_DIED = signal.SIGUSR2
WAITED_SIGNALS = STOP_SIGNALS | {signal.SIGCHLD, GUARDIAN_DIED}
_KILL_SECONDS = 2.0


def run_guarded(supervise: Callable[[], int]) -> int:
    """Run ``supervise`` in a guarded child process and return the exit status for this one.

    ``supervise`` runs as a child subreaper with ``WAITED_SIGNALS`` blocked. When this function
    returns, no process that ``supervise`` started is left. File locks of this process are shared
    by the child: they last until both have ended.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would hide all deaths
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_SIGNALS)
    become_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    guardian = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        _become_supervisor(guardian, supervise)
    code = _pass_signals_on(supervisor)
    process_tree.kill_descendants(lambda pid, code: None, _KILL_SECONDS)
    if code < 0:
        name = signal_name(-code)
        print(f"error: the launcher was killed by {name}; its run is stopped", file=sys.stderr)
        return 1
    return code


def _become_supervisor(guardian: int, supervise: Callable[[], int]) -> Never:
    status = 1
    try:
        os.setsid()  # the terminal's Ctrl-C reaches the guardian only, and from there comes once
        become_subreaper()
        die_with_parent(guardian, GUARDIAN_DIED)
        status = supervise()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)  # a forked child must not return into its parent's call stack


def _pass_signals_on(supervisor: int) -> int:
    """Return the supervisor's exit status, or minus the signal that killed it."""
    ended: dict[int, int] = {}
    heeded = {s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}  # see nohup(1)
    while supervisor not in ended:
        signum = signal.sigwaitinfo(heeded | {signal.SIGCHLD}).si_signo
        if signum != signal.SIGCHLD:
            os.kill(supervisor, signum)
        process_tree.reap(ended.__setitem__)
    return ended[supervisor]
