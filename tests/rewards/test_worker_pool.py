from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import RunError
from engine.rewards.score import CRASH, RIGHT, TIMEOUT, WRONG, Score
from engine.rewards.workers import WorkerPool

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds, for verdicts that come: a busy machine may take a while
DEADLINE = 0.5  # seconds, for those that never come


@pytest.fixture(autouse=True)
def workers_find_the_faulty_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def pool(workers: int = 1, deadline_seconds: float = PATIENCE, **limits: int) -> WorkerPool:
    return WorkerPool("faulty_scorer", workers=workers, deadline_seconds=deadline_seconds, **limits)


def judged(*responses: str, **settings: Any) -> list[Score]:
    """Judge responses one after the other in one pool; the reference is always 'good'."""

    async def judge() -> list[Score]:
        async with pool(**settings) as workers:
            return [await workers.score(response, "good") for response in responses]

    return asyncio.run(judge())


async def judged_at_last(workers: WorkerPool, response: str) -> Score:
    """Judge ``response`` until it is judged in time: a busy machine may need several attempts."""
    while (verdict := await workers.score(response, "good")) == TIMEOUT:
        pass
    return verdict


def succeeds_within(attempts: int, judge: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
    """Whether one of some attempts succeeds, where a stalled machine can only make one fail."""
    return any(asyncio.run(judge()) for _ in range(attempts))


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "engine.rewards.worker" in child.cmdline()]


def test_answers_are_judged_by_the_module() -> None:
    assert judged("good", "bad", "print") == [RIGHT, WRONG, WRONG]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "compute"])
def test_an_answer_that_is_never_judged_is_a_timeout_and_the_next_one_is_judged(fault: str) -> None:
    async def judge() -> None:
        async with pool(deadline_seconds=DEADLINE) as workers:
            started = time.monotonic()
            assert await workers.score(fault, "good") == TIMEOUT
            assert time.monotonic() - started >= DEADLINE
            assert await judged_at_last(workers, "good") == RIGHT

    asyncio.run(judge())


@pytest.mark.parametrize("fault", ["raise", "recurse", "exit", "abort", "eat-memory"])
def test_a_judge_that_breaks_is_a_crash_and_the_next_answer_is_judged(fault: str) -> None:
    verdicts = judged(fault, "good", memory_bytes=1 << 28)
    assert verdicts == [CRASH, RIGHT]


def test_a_worker_cannot_take_the_machines_memory() -> None:
    async def judge() -> int:
        largest = 0
        async with pool(memory_bytes=1 << 28) as workers:
            verdict = asyncio.create_task(workers.score("eat-memory", "good"))
            while not verdict.done():
                largest = max([largest, *(w.memory_info().rss for w in worker_processes())])
                await asyncio.sleep(0.002)
        return largest

    assert 0 < asyncio.run(judge()) <= 1 << 28


def test_a_worker_killed_in_the_middle_of_an_answer_is_a_crash() -> None:
    async def judge() -> list[Score]:
        async with pool() as workers:
            answer = asyncio.create_task(workers.score("hang", "good"))
            await asyncio.sleep(0.3)
            (victim,) = worker_processes()
            victim.send_signal(signal.SIGKILL)
            return [await answer, await workers.score("good", "good")]

    assert asyncio.run(judge()) == [CRASH, RIGHT]


def test_a_worker_killed_while_idle_costs_no_answer() -> None:
    async def judge() -> Score:
        async with pool() as workers:
            (victim,) = worker_processes()
            victim.send_signal(signal.SIGKILL)
            while workers._workers[0].alive:  # until the event loop has seen its pipes close
                await asyncio.sleep(0.01)
            return await workers.score("good", "good")

    assert asyncio.run(judge()) == RIGHT


@pytest.mark.slow
def test_the_deadline_is_per_answer_and_waiting_for_a_worker_is_not_counted() -> None:
    async def judge() -> bool:
        async with pool(workers=1, deadline_seconds=1.5) as workers:
            answers = [workers.score("sleep 0.4", "good") for _ in range(6)]
            return await asyncio.gather(*answers) == [RIGHT] * 6

    assert succeeds_within(5, judge)


def test_answers_beside_a_hanging_one_are_judged_meanwhile() -> None:
    async def judge() -> None:
        async with pool(workers=2) as workers:
            hanging = asyncio.create_task(workers.score("hang", "good"))
            await asyncio.sleep(0)
            good = [await workers.score("good", "good") for _ in range(20)]
            assert good == [RIGHT] * 20
            assert not hanging.done()
            hanging.cancel()

    asyncio.run(judge())


@pytest.mark.slow
def test_a_verdict_in_time_counts_though_the_event_loop_looked_late() -> None:
    async def judge() -> bool:
        verdicts = []
        async with pool(deadline_seconds=0.5) as workers:
            for response in ["good", "good", "good", "sleep 0.6", "good"]:
                answer = asyncio.create_task(workers.score(response, "good"))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                time.sleep(0.8)  # what a busy sampler does to its event loop
                verdicts.append(await answer)
        return verdicts == [RIGHT, RIGHT, RIGHT, TIMEOUT, RIGHT]

    assert succeeds_within(5, judge)


def test_a_cancelled_answer_leaves_a_working_pool() -> None:
    async def judge() -> Score:
        async with pool() as workers:
            answer = asyncio.create_task(workers.score("hang", "good"))
            await asyncio.sleep(0.2)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            return await workers.score("good", "good")

    assert asyncio.run(judge()) == RIGHT


def test_long_answers_pass_whole() -> None:
    text = "wait, 等 " * 100_000
    long = f"{text}\n\ud800"

    async def judge() -> Score:
        async with pool() as workers:
            return await workers.score(long, long)

    assert asyncio.run(judge()) == RIGHT


def test_no_process_is_left_behind_by_a_pool_that_closes() -> None:
    async def judge() -> None:
        async with pool(workers=3) as workers:
            hanging = [asyncio.create_task(workers.score("hang", "good")) for _ in range(5)]
            await asyncio.sleep(0.3)
            assert len(worker_processes()) == 3
        assert worker_processes() == []
        ends = await asyncio.gather(*hanging, return_exceptions=True)
        assert worker_processes() == []  # those that were still waiting started none
        assert [type(end) for end in ends].count(RuntimeError) == 2

    asyncio.run(judge())


def test_a_pool_that_closes_while_answers_are_cancelled_waits_until_its_processes_are_gone() -> (
    None
):
    async def judge() -> None:
        async with pool(workers=2) as workers:
            hanging = [asyncio.create_task(workers.score("hang", "good")) for _ in range(2)]
            await asyncio.sleep(0.1)
            for answer in hanging:
                answer.cancel()
        assert worker_processes() == []

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's own: subprocess ... is still running
        asyncio.run(judge())
        gc.collect()


@pytest.mark.slow
def test_no_process_is_left_behind_by_a_parent_that_is_killed() -> None:
    program = textwrap.dedent("""
        import asyncio
        from engine.rewards.workers import WorkerPool

        async def main():
            async with WorkerPool("faulty_scorer", workers=2, deadline_seconds=60) as pool:
                answers = [asyncio.create_task(pool.score("hang", "")) for _ in range(2)]
                await asyncio.sleep(0.3)
                print("busy", flush=True)
                await asyncio.gather(*answers)

        asyncio.run(main())
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == "busy\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) == 2
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    _, left = psutil.wait_procs(workers, timeout=60)
    assert [worker for worker in left if worker.status() != psutil.STATUS_ZOMBIE] == []


def test_a_scorer_that_cannot_be_prepared_stops_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULTY_PREPARE", "1")
    with pytest.raises(RunError, match="reward worker for faulty_scorer did not become ready"):
        judged("good", workers=2)
    assert worker_processes() == []


@pytest.mark.slow
def test_a_worker_is_light() -> None:
    program = textwrap.dedent("""
        import sys
        import engine.rewards.worker, engine.rewards.accuracy, engine.rewards.reward_function
        heavy = {"torch", "numpy", "math_verify", "sympy", "transformers"} & set(sys.modules)
        assert not heavy, heavy
        engine.rewards.accuracy.prepare()
        assert "torch" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", program], check=True)
