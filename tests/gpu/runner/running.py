"""Run steps one after another; what one of them does keeps no other from running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from results import Results
from steps import ROOT, TESTS, Step

LEAST_SECONDS = 5.0
"""With less left a step is not started."""
GRACE_SECONDS = 5.0
"""Between asking a step to end and killing it."""


class Running:
    """A step that was started, in a session of its own so that nothing of it outlives it."""

    def __init__(self, asked: Step, out: Path, until: float) -> None:
        self.step, self._out = asked, out
        self.log = out / f"{asked.name}.log"
        self.begun = time.monotonic()
        self._until = min(self.begun + asked.seconds, until)
        self._late = False
        with suppress(OSError):
            (out / asked.file).unlink()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                asked.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        """Return whether the step has ended; where its time is over, stop it."""
        if self._process.poll() is not None:
            self._signal(signal.SIGKILL)  # processes that it left behind
            return True
        late = time.monotonic() - self._until
        if late > GRACE_SECONDS:
            self._signal(signal.SIGKILL)
        elif late > 0 and not self._late:
            self._late = True
            self._signal(signal.SIGTERM)
        return False

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def outcome(self) -> tuple[str, str | None]:
        """Return the status and why it did not pass."""
        code = self._process.returncode
        if self._late:
            return "timeout", f"stopped after {self._until - self.begun:.0f} s"
        if code == 0 and (self._out / self.step.file).exists():
            return "passed", None
        if code == 0:
            return "failed", f"left no {self.step.file}"
        said = last_line(self.log.read_text(errors="replace")) or f"exit status {code}"
        return "killed" if code in (-signal.SIGKILL, 128 + signal.SIGKILL) else "failed", said

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def run(waiting: deque[Step], out: Path, results: Results, until: float, jobs: int) -> None:
    """Run the steps in their order; up to ``jobs`` files of tests side by side."""
    running: list[Running] = []
    try:
        while waiting or running:
            while waiting and fits(waiting[0], running, jobs):
                asked = waiting.popleft()
                if until - time.monotonic() < LEAST_SECONDS:
                    results.add(asked, "no time left", None)
                    continue
                print(f"== {asked.name}", flush=True)
                running.append(Running(asked, out, until))
            time.sleep(0.05)
            for one in [one for one in running if one.has_ended()]:
                running.remove(one)
                status, reason = one.outcome()
                if status != "passed":
                    lines = one.log.read_text(errors="replace").splitlines()
                    print(*lines[-5:], sep="\n", file=sys.stderr, flush=True)
                results.add(one.step, status, reason, time.monotonic() - one.begun)
    finally:
        for one in running:
            one.kill()


def fits(asked: Step, running: list[Running], jobs: int) -> bool:
    """Return whether ``asked`` may start now: tests run side by side, benchmarks alone."""
    tests = all(name in TESTS for name in (asked.name, *(one.step.name for one in running)))
    return not running or (tests and len(running) < jobs)


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()
