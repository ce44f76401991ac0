"""A function in a child process: its value, its failure or its end is never lost."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time

import psutil

from engine.checkpoint.forked_writer import Done, Failed, ForkedWriter, run_here


def outcome(child: ForkedWriter, limit: float = 120) -> Done | Failed:
    deadline = time.monotonic() + limit
    while (found := child.outcome()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def sleep() -> None:
    time.sleep(600)


def full() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device", "/disk/file")
    except OSError:
        raise RuntimeError("writer failed\nwith details") from None


def test_the_child_never_frees_what_is_the_parents():
    assert gc.isenabled()
    assert outcome(ForkedWriter(gc.isenabled, limit_seconds=120)) == Done(False)
    assert gc.isenabled()


def test_the_value_comes_back_however_large():
    child = ForkedWriter(lambda: bytes(3_000_000), limit_seconds=120)
    assert outcome(child) == Done(bytes(3_000_000))
    assert child.pid == 0


def test_the_child_sees_memory_as_it_was_when_it_was_started():
    numbers = [1, 2, 3]
    read, write = os.pipe()
    child = ForkedWriter(lambda: (os.read(read, 1), list(numbers))[1], limit_seconds=120)
    numbers.clear()
    os.write(write, b".")
    assert outcome(child) == Done([1, 2, 3])


def test_the_operating_system_s_word_is_the_reason():
    assert outcome(ForkedWriter(full, 120)) == Failed("No space left on device (/disk/file)")
    assert run_here(full) == Failed("No space left on device (/disk/file)")
    assert run_here(lambda: 1 / 0) == Failed("ZeroDivisionError: division by zero")


def test_a_killed_child_is_a_failure_that_says_so():
    child = ForkedWriter(sleep, 120)
    assert child.outcome() is None
    os.kill(child.pid, signal.SIGKILL)
    assert outcome(child) == Failed("the writing process was killed by SIGKILL")
    assert outcome(child) == Failed("the writing process was killed by SIGKILL")


def test_a_child_that_cannot_answer_is_a_failure():
    assert outcome(ForkedWriter(lambda: lambda: None, 120)) == Failed(
        "the writing process ended with exit code 1"
    )


def test_a_child_that_takes_too_long_is_ended():
    child = ForkedWriter(sleep, limit_seconds=0.05)
    process = psutil.Process(child.pid)
    found = outcome(child)
    assert isinstance(found, Failed) and found.reason.startswith("the writing process was not done")
    assert not process.is_running()


def test_no_child_can_be_started(monkeypatch):
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    child = ForkedWriter(sleep, 120)
    assert child.outcome() == Failed(
        "no process for writing can be started (Resource temporarily unavailable)"
    )
    child.kill()


def test_it_dies_with_its_parent():
    program = (
        "import time\nfrom engine.checkpoint.forked_writer import ForkedWriter\n"
        "print(ForkedWriter(lambda: time.sleep(600), 600).pid, flush=True)\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
