"""Waiting has a limit, backs off gently and says whom it waits for."""

from __future__ import annotations

import asyncio
import itertools
import logging
from types import SimpleNamespace

import pytest

from engine.errors import RunError
from engine.platform import waiting
from engine.platform.waiting import wait_for, wait_for_async


def nobody() -> str:
    return "nobody was asked"


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock that only sleeping moves: a busy machine changes nothing."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(waiting.time, "sleep", sleep)
    return clock


def test_the_first_answer_that_is_not_none_is_returned_even_if_it_is_false():
    answers = iter([None, None, 0, 1])
    assert wait_for("an answer", lambda: next(answers), 5, nobody) == 0


def test_the_message_names_what_how_long_and_what_the_other_party_did():
    with pytest.raises(RunError) as raised:
        wait_for("rollout 12", lambda: None, 0.05, lambda: 'the sampler said "group 3", 7 s ago')
    assert str(raised.value) == (
        'waited 0.05 s for rollout 12; the sampler said "group 3", 7 s ago'
    )


def test_the_limit_is_kept_and_the_last_look_is_at_its_end(clock):
    looks: list[float] = []
    with pytest.raises(RunError):
        wait_for("nothing", lambda: looks.append(clock.now), 0.5, nobody)
    assert looks[-1] == clock.now == pytest.approx(0.5)


def test_polling_backs_off_from_ten_to_two_hundred_milliseconds(monkeypatch):
    slept: list[float] = []
    clock = itertools.count()
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(clock) * 0.1)
    monkeypatch.setattr(waiting.time, "sleep", slept.append)
    with pytest.raises(RunError):
        wait_for("nothing", lambda: None, 5.0, nobody)
    assert slept[0] == 0.01
    assert max(slept) == 0.2
    assert slept[:-2] == sorted(slept[:-2])
    assert sum(slept[:12]) > 1.0  # a second of waiting costs a dozen looks, no busy loop


def test_an_unreachable_party_does_not_hide_what_was_waited_for():
    def gone() -> str:
        raise RunError("trainer rank 0 no longer answers")

    with pytest.raises(RunError, match=r"for weights version 3; trainer rank 0 no longer"):
        wait_for("weights version 3", lambda: None, 0, gone)


def test_what_poll_raises_is_passed_on_at_once():
    def poll() -> None:
        raise RunError("server-1 has ended with exit 1")

    with pytest.raises(RunError, match="server-1"):
        wait_for("server-1", poll, 100, nobody)


def test_a_long_wait_is_reported_while_it_lasts(clock, caplog):
    limit = 3.5 * waiting.NOTICE_SECONDS
    with caplog.at_level(logging.WARNING), pytest.raises(RunError):
        wait_for("rollout 3", lambda: None, limit, lambda: "the sampler is busy")
    assert len(caplog.messages) == 3
    assert all("rollout 3" in m and "the sampler is busy" in m for m in caplog.messages)


def test_async_waiting_leaves_the_loop_free_and_takes_coroutine_polls():
    async def body() -> tuple[str, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        async def poll() -> str | None:
            await asyncio.sleep(0)
            return "here" if ticks > 5 else None

        ticker = asyncio.create_task(tick())
        found = await wait_for_async("it", poll, 60, nobody)
        ticker.cancel()
        return found, ticks

    found, ticks = asyncio.run(body())
    assert found == "here" and ticks > 5


def test_async_waiting_has_the_same_message():
    with pytest.raises(RunError, match=r"waited 0.02 s for version 2; nobody was"):
        asyncio.run(wait_for_async("version 2", lambda: None, 0.02, nobody))
