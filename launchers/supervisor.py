"""Start a run's processes, watch them, and end all of them together.

Signals are not handled but waited for: they stay blocked and ``sigtimedwait`` hands them over one
by one, between two steps of ordinary code. So there is nothing to poll, and no handler that could
run in the middle of something else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunError
from engine.platform.files import open_to_append
from engine.platform.parent_death import die_with_parent
from launchers import log_tail, process_tree
from launchers.failure import Death, root_cause, with_words
from launchers.guardian import GUARDIAN_DIED, STOP_SIGNALS, WAITED_SIGNALS
from launchers.process import Process

SETTLE_SECONDS = 1.0  # after a bad death, to see what else has died and find the cause
CAUSE_SECONDS = 2.0  # more, where all that have died only say that another process is gone
GRACE_SECONDS = 3.0  # between SIGTERM and SIGKILL
KILL_SECONDS = 4.0  # for SIGKILL to take effect

_ENVIRONMENT = {
    # parallelism comes from processes: more threads than cores cost up to 8 times the time
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # what a process said before it was killed must be in its log
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",
}


@dataclass(frozen=True)
class Finished:
    """Every process that was to end has ended with exit status 0."""


@dataclass(frozen=True)
class Failed:
    """A process ended that should not have, or ended badly."""

    cause: Death
    others: tuple[Death, ...]
    """Further bad deaths of about the same moment, in order."""


@dataclass(frozen=True)
class Stopped:
    """A signal asked for the end of the run."""

    signum: signal.Signals


Ending = Finished | Failed | Stopped


@dataclass
class _Child:
    process: Process
    popen: subprocess.Popen[bytes]
    death: Death | None = None


class Supervisor:
    """One run's processes, from their start to the end of their last descendant.

    Must be used in the main thread of a process that is a child subreaper and has
    ``WAITED_SIGNALS`` blocked, both of which ``guardian.run_guarded`` provides.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: dict[int, _Child] = {}
        self._started_at = time.monotonic()
        self.survivors: list[str] = []
        """After ``run``: descendants that not even SIGKILL has ended yet."""

    def run(
        self, processes: Sequence[Process], announce: Callable[[Ending], None] = lambda ending: None
    ) -> Ending:
        """Start ``processes``; return when the run is over and all of its processes have ended.

        ``announce`` is told how the run ends before what still lives is stopped. Raises RunError
        when a process cannot be started; the others are then stopped too.
        """
        ending: Ending | None = None
        try:
            for process in processes:
                self._start(process)
            ending = self._watch()
            announce(ending)
            return ending
        finally:
            self._stop(at_once=isinstance(ending, Stopped) and ending.signum == GUARDIAN_DIED)

    def log_of(self, name: str) -> Path:
        """Return the log file of the process called ``name``."""
        return self._log_dir / f"{name}.log"

    def _start(self, process: Process) -> None:
        launcher = os.getpid()

        def prepare() -> None:  # in the child, between fork and exec
            die_with_parent(launcher)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_SIGNALS)

        env = {**os.environ, **_ENVIRONMENT, **process.env}
        try:
            with open_to_append(self.log_of(process.name)) as log:
                log.write(log_tail.header(process.name, process.command).encode())
                log.flush()
                popen = subprocess.Popen(
                    process.command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=None if process.console else log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=prepare,
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise RunError(f"{process.name} could not be started: {error}") from error
        self._children[popen.pid] = _Child(process, popen)

    def _watch(self) -> Ending:
        """Wait for what ends the run, and return it."""
        while True:
            if signum := self._wait(None):
                return Stopped(signum)
            if self._work_is_done():
                return Finished()
            if any(death.bad for death in self._deaths()):
                return self._diagnose()

    def _diagnose(self) -> Ending:
        settled = time.monotonic() + SETTLE_SECONDS
        latest = settled + CAUSE_SECONDS
        while True:
            now = time.monotonic()
            bad = [self._with_words(death) for death in self._deaths() if death.bad]
            cause = root_cause(bad)
            if now >= latest or (now >= settled and not cause.is_consequence):
                return Failed(cause, tuple(death for death in bad if death is not cause))
            if signum := self._wait((settled if now < settled else latest) - now):
                return Stopped(signum)

    def _with_words(self, death: Death) -> Death:
        return with_words(death, log_tail.latest(self.log_of(death.name)))

    def _stop(self, at_once: bool) -> None:
        """Send SIGTERM to every process group, and SIGKILL to what runs after the grace period.

        A further stop signal (a second Ctrl-C) ends the grace period.
        """
        deadline = time.monotonic() + (0 if at_once else GRACE_SECONDS)
        for pid, child in self._children.items():
            if child.death is None:  # otherwise the number may already be another process's
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGTERM)
        while self._running() and (left := deadline - time.monotonic()) > 0:
            if self._wait(left):
                break
        self.survivors = process_tree.kill_descendants(self._record, KILL_SECONDS)

    def _wait(self, seconds: float | None) -> signal.Signals | None:
        """Wait for one signal; record deaths, and return the signal if it asks for a stop."""
        if seconds is None:
            signum = signal.sigwaitinfo(WAITED_SIGNALS).si_signo
        else:
            info = signal.sigtimedwait(WAITED_SIGNALS, seconds)
            signum = info.si_signo if info else signal.SIGCHLD
        process_tree.reap(self._record)
        stop = signum in STOP_SIGNALS or signum == GUARDIAN_DIED
        return signal.Signals(signum) if stop else None

    def _record(self, pid: int, code: int) -> None:
        child = self._children.get(pid)
        if child is None:  # an orphaned descendant
            return
        child.popen.returncode = code  # reaped here: Popen must not wait for it
        child.death = Death(
            child.process.name, child.process.service, code, time.monotonic() - self._started_at
        )

    def _deaths(self) -> list[Death]:
        return [child.death for child in self._children.values() if child.death]

    def _running(self) -> bool:
        return any(child.death is None for child in self._children.values())

    def _work_is_done(self) -> bool:
        work = [child.death for child in self._children.values() if not child.process.service]
        return bool(work) and all(death is not None and death.code == 0 for death in work)
