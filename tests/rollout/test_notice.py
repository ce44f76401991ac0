"""A wait goes on as soon as the other party gives notice, and without one by looking."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from engine.errors import RunError
from engine.platform import waiting
from engine.platform.waiting import wait_for, wait_for_async
from engine.rollout.control import Control
from launchers.ports import LoopbackPorts

LONG = 20.0  # seconds of a pause that a notice ends


@pytest.fixture
def parties() -> Iterator[tuple[Control, Control]]:
    """Trainer and sampler."""
    address = f"127.0.0.1:{next(LoopbackPorts())}"
    trainer = Control.host(address)
    yield trainer, Control.connect(address, "sampler", 5)


@pytest.fixture
def long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", LONG)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE_SECONDS", LONG)


def nobody() -> str:
    return "nobody was asked"


def test_a_push_wakes_the_sampler(parties, long_pauses):
    trainer, sampler = parties

    def poll() -> int | None:
        return version if (version := sampler.weights_version()) == 6 else None

    async def sample() -> int | None:
        with sampler.notice_of_weights(6) as notice:
            threading.Timer(0.3, trainer.announce_weights_version, [6]).start()
            return await wait_for_async("version 6", poll, 60, nobody, notice.pause_async)

    begun = time.monotonic()
    assert asyncio.run(sample()) == 6
    assert time.monotonic() - begun < LONG / 2


def test_a_stored_step_wakes_every_rank(parties, long_pauses):
    sampler = parties[1]
    stored = threading.Event()
    found: list[object] = []

    def store() -> None:
        stored.set()
        sampler.announce_stored("rollouts", 3)

    def poll() -> bool | None:
        return stored.is_set() or None

    def rank(control: Control) -> None:
        with control.notice_of_step("rollouts", 3) as notice:
            found.append(wait_for("rollout 3", poll, 60, nobody, notice.pause))

    begun = time.monotonic()
    ranks = [threading.Thread(target=rank, args=[control]) for control in parties]
    for thread in ranks:
        thread.start()
    threading.Timer(0.3, store).start()
    for thread in ranks:
        thread.join()
    assert found == [True, True]
    assert time.monotonic() - begun < LONG / 2


def test_a_notice_of_another_step_or_store_wakes_nobody(parties):
    trainer, sampler = parties
    with trainer.notice_of_step("rollouts", 3) as notice:
        sampler.announce_stored("rollouts", 2)
        sampler.announce_stored("evaluations", 3)
        begun = time.monotonic()
        notice.pause(0.3)
        assert time.monotonic() - begun >= 0.3


def test_pauses_are_whole_again_after_the_notice(parties):
    trainer, sampler = parties
    sampler.announce_servers_ready()
    with trainer.notice_of_servers() as notice:
        begun = time.monotonic()
        notice.pause(LONG)
        assert time.monotonic() - begun < LONG / 2
        begun = time.monotonic()
        notice.pause(0.2)  # what was announced cannot be seen yet: no look after look
        assert time.monotonic() - begun >= 0.2


def test_what_is_stored_without_a_notice_is_found_by_looking(parties):
    trainer, _ = parties
    looks = iter([None, None, "stored"])
    with trainer.notice_of_step("rollouts", 1) as notice:
        assert wait_for("rollout 1", lambda: next(looks), 5, nobody, notice.pause) == "stored"


def test_a_wait_that_ends_leaves_no_thread_behind(parties):
    for control in parties:
        before = threading.active_count()
        with (
            pytest.raises(RunError, match=r"waited 0\.1 s for rollout 8"),
            control.notice_of_step("rollouts", 8) as notice,
        ):
            wait_for("rollout 8", lambda: None, 0.1, nobody, notice.pause)
        assert threading.active_count() == before


WAITING_HOST = """
import sys
from engine.errors import clear_errors
from engine.platform.waiting import wait_for
from engine.rollout.control import Control
with clear_errors():
    control = Control.host(sys.argv[1])
    with control.notice_of_step("rollouts", 0) as notice:
        print("waiting", flush=True)
        wait_for("rollout 0", lambda: None, 100, lambda: "", notice.pause)
"""


@pytest.mark.slow
def test_a_host_that_is_stopped_while_it_waits_ends_by_its_own_exit_status():
    address = f"127.0.0.1:{next(LoopbackPorts())}"
    command = [sys.executable, "-c", WAITING_HOST, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM  # not killed by torch's SIGABRT
