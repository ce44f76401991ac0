"""A launcher as its user has it: a command in a pipe or a terminal, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]


class Launched:
    """A started command whose output (stdout and stderr together) is collected as it comes.

    With ``terminal`` it runs as the foreground of a terminal of its own, so that ``press`` with
    ``"\\x03"`` is a real Ctrl-C.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> None:
        self.command = list(command)
        self._text = ""
        self._complete = False
        self._changed = threading.Condition()
        ours, theirs = pty.openpty() if terminal else os.pipe()
        self._descriptor = ours
        self.popen = subprocess.Popen(
            self.command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if terminal else None,
        )
        os.close(theirs)
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    @property
    def pid(self) -> int:
        """The pid of the command itself."""
        return self.popen.pid

    @property
    def output(self) -> str:
        """Everything printed so far."""
        with self._changed:
            return self._text

    def wait_for(self, text: str, limit: float) -> None:
        """Return once ``text`` has been printed; fail after ``limit`` seconds or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: text in self._text or self._complete, timeout=limit)
            if text not in self._text:
                raise AssertionError(f"{text!r} was not printed in {limit} s:\n{self._text}")

    def wait(self, limit: float) -> int:
        """Exit status (minus the signal's number if killed); fails after ``limit`` seconds."""
        try:
            status = self.popen.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit} s:\n{self.output}") from None
        self._collector.join(1)  # not for ever: what has been left behind may keep the pipe open
        return status

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the command's own process, not to its group."""
        self.popen.send_signal(signum)

    def press(self, keys: str) -> None:
        """Type ``keys`` into the terminal."""
        os.write(self._descriptor, keys.encode())

    def end(self) -> None:
        """Kill whatever is still there of the command; for the end of a test."""
        try:
            tree = [*psutil.Process(self.pid).children(recursive=True), psutil.Process(self.pid)]
        except psutil.NoSuchProcess:
            tree = []
        kill(tree)
        self.popen.wait()
        self._collector.join(1)

    def _collect(self) -> None:
        while True:
            try:
                chunk = os.read(self._descriptor, 65536)
            except OSError:  # EIO: the terminal's last user has left
                chunk = b""
            with self._changed:
                self._complete = not chunk
                self._text += chunk.decode(errors="replace")
                self._changed.notify_all()
            if not chunk:
                os.close(self._descriptor)
                return


def leftovers(run_dir: Path) -> list[psutil.Process]:
    """Living processes that belong to the run in ``run_dir``, however far they have detached.

    They are known by the folder's absolute path in their command line or environment, or by an
    open file in it: a process that renames itself (SGLang's scheduler) wipes the former two.
    """
    folder = str(run_dir.resolve())
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                any(folder in argument for argument in process.cmdline())
                or any(folder in value for value in process.environ().values())
                or any(file.path.startswith(f"{folder}/") for file in process.open_files())
            ):
                found.append(process)
        except psutil.Error:  # it has ended meanwhile, or is another user's
            continue
    return found


def assert_nothing_left(run_dir: Path, limit: float) -> None:
    """Fail, naming them, if processes of ``run_dir`` are still alive after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while left := leftovers(run_dir):
        if time.monotonic() > deadline:
            names = [" ".join(process.cmdline()) or process.name() for process in left]
            raise AssertionError(f"left after {limit} s: {names}")
        time.sleep(0.05)


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL each of ``processes`` that still lives."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Makes a ``Launched`` of its arguments, and ends it after the test.

    What else uses ``tmp_path`` is ended too.
    """
    started: list[Launched] = []

    def start(*arguments: object, **options: object) -> Launched:
        started.append(Launched(*arguments, **options))
        return started[-1]

    yield start
    for command in started:
        command.end()
    kill(leftovers(tmp_path))
