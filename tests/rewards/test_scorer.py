from __future__ import annotations

import asyncio
import time

import psutil
import pytest

from engine.config.sampler import RewardsConfig
from engine.rewards.score import CRASH, RIGHT, TIMEOUT, UNPARSABLE, WRONG, Score
from engine.rewards.scorer import RewardResult, Scorer


def config(deadline_seconds: float = 5.0) -> RewardsConfig:
    accuracy = {"weight": 1.0, "deadline_seconds": deadline_seconds, "workers": 2}
    return RewardsConfig.model_validate({"accuracy": accuracy, "format": {"weight": 0.5}})


def scored(*pairs: tuple[str, str], deadline_seconds: float = 5.0) -> list[RewardResult]:
    async def score() -> list[RewardResult]:
        async with Scorer(config(deadline_seconds)) as scorer:
            return await asyncio.gather(*(scorer.score(*pair) for pair in pairs))

    return asyncio.run(score())


def tagged(answer: str) -> str:
    return f"<think> start 3 ; </think> <answer> {answer} </answer>"


def test_the_reward_is_the_weighted_sum_of_the_verdicts() -> None:
    cases: dict[str, tuple[Score, Score, float]] = {
        tagged("7"): (RIGHT, RIGHT, 1.5),
        tagged("8"): (WRONG, RIGHT, 0.5),
        "so <answer> 7 </answer>": (RIGHT, WRONG, 1.0),
        "so 7": (UNPARSABLE, WRONG, 0.0),
        tagged(r"\frac{14}{2}"): (RIGHT, RIGHT, 1.5),
    }
    assert scored(*((response, "7") for response in cases)) == [
        RewardResult({"accuracy": accuracy, "format": layout}, reward)
        for accuracy, layout, reward in cases.values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["9^{9^{9^9}}", "9^{9^{9}}", "9^{99999999}", "(10^9)!"])
def test_an_endless_power_is_a_timeout_within_the_deadline(tower: str) -> None:
    async def score() -> None:
        async with Scorer(config(deadline_seconds=2.0)) as scorer:
            started = time.monotonic()
            result = await scorer.score(tagged(tower), "7")
            assert time.monotonic() - started < 4.0
            assert result == RewardResult({"accuracy": TIMEOUT, "format": RIGHT}, 0.5)
            assert (await scorer.score(tagged("x + 1"), "1 + x")).reward == 1.5

    asyncio.run(score())


def test_256_short_integer_answers_cost_well_under_a_tenth_of_a_second() -> None:
    answers = [(tagged(str(number % 10)), "7") for number in range(256)]

    async def score() -> float:
        async with Scorer(config()) as scorer:
            fastest = float("inf")  # of a few: the machine may be busy with other things
            for _ in range(5):
                started = time.monotonic()
                results = await asyncio.gather(*(scorer.score(*answer) for answer in answers))
                fastest = min(fastest, time.monotonic() - started)
                assert sum(result.scores["accuracy"] == RIGHT for result in results) == 25
            return fastest

    assert asyncio.run(score()) < 0.05


@pytest.mark.slow
def test_a_deep_expression_is_no_worse_than_a_crash() -> None:
    (result,) = scored((tagged("(" * 3000 + "7"), "7"), deadline_seconds=2.0)
    assert result.scores["accuracy"] in (UNPARSABLE, TIMEOUT, CRASH)
    assert result.reward == 0.5


def test_no_process_is_left_behind_by_a_scorer() -> None:
    scored((tagged("x"), "y"))
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if "engine.rewards.worker" in child.cmdline()] == []
