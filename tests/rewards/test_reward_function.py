from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
import pytest

from engine.errors import RunError
from engine.rewards.reward import Answer, Reward
from engine.rewards.reward_function import RewardFunction, RewardResult
from engine.rewards.score import CRASH, RIGHT, TIMEOUT, UNPARSABLE, WRONG, Score, graded
from engine.rewards.table import RewardsConfig


def of_zero(deadline_seconds: float = 120.0) -> RewardFunction:
    accuracy = {"weight": 1.0, "deadline_seconds": deadline_seconds, "workers": 2}
    section = {"accuracy": accuracy, "format": {"weight": 0.5}}
    return RewardFunction(RewardsConfig.model_validate(section).chosen)


def scored(*pairs: tuple[str, str], deadline_seconds: float = 120.0) -> list[RewardResult]:
    return judged(of_zero(deadline_seconds), *pairs)


def judged(rewards: RewardFunction, *pairs: tuple[str, str]) -> list[RewardResult]:
    async def score() -> list[RewardResult]:
        async with rewards:
            return await asyncio.gather(*(rewards.score(Answer("", *pair)) for pair in pairs))

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
        async with of_zero(deadline_seconds=2.0) as rewards:
            result = await rewards.score(Answer("", tagged(tower), "7"))
            assert result == RewardResult({"accuracy": TIMEOUT, "format": RIGHT}, 0.5)
            after = result
            while after.scores["accuracy"] == TIMEOUT:  # on a busy machine even this may be late
                after = await rewards.score(Answer("", tagged("x + 1"), "1 + x"))
            assert after.reward == 1.5

    asyncio.run(score())


def test_256_short_integer_answers_cost_well_under_a_tenth_of_a_second() -> None:
    answers = [Answer("", tagged(str(number % 10)), "7") for number in range(256)]

    async def score() -> float:
        async with of_zero() as rewards:
            fastest = float("inf")  # of a few, and of this process's own time alone
            for _ in range(5):
                started = time.process_time()
                results = await asyncio.gather(*(rewards.score(answer) for answer in answers))
                fastest = min(fastest, time.process_time() - started)
                assert sum(result.scores["accuracy"] == RIGHT for result in results) == 25
            return fastest

    assert asyncio.run(score()) < 0.05


@pytest.mark.slow
def test_a_deep_expression_is_no_worse_than_a_crash() -> None:
    (result,) = scored((tagged("(" * 3000 + "7"), "7"), deadline_seconds=2.0)
    assert result.scores["accuracy"] in (UNPARSABLE, TIMEOUT, CRASH)
    assert result.reward == 0.5


def test_no_process_is_left_behind_by_a_reward_function() -> None:
    scored((tagged("x"), "y"))
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if "engine.rewards.worker" in child.cmdline()] == []


class Constant(Reward):
    """Gives every answer one verdict, or raises; notes when it is entered and left."""

    verdict: Score = RIGHT
    raises: str = ""

    async def __aenter__(self):
        if self.raises == "start":
            raise RunError("no such server")
        events.append("start")
        return self

    async def __aexit__(self, *exception):
        events.append("end")

    async def score(self, answer: Answer) -> Score:
        if self.raises == "bug":
            raise KeyError("no such key")
        if self.raises == "stop":
            raise RunError("the judge is gone")
        return self.verdict


class Loose(Reward):
    """Returns whatever it was given."""

    returns: Any = None

    async def score(self, answer: Answer) -> Score:
        return self.returns  # type: ignore[no-any-return]


events: list[str] = []


def test_all_rewards_that_are_present_are_summed_and_no_others() -> None:
    rewards = {
        "length": Constant(weight=0.5, verdict=graded(-3.0)),
        "one.own": Constant(weight=2.0),
        "watched": Constant(weight=0.0, verdict=WRONG),
    }
    assert judged(RewardFunction(rewards), ("x", "y")) == [
        RewardResult({"length": graded(-3.0), "one.own": RIGHT, "watched": WRONG}, reward=0.5)
    ]


def test_a_reward_that_raises_or_gives_no_number_is_a_crash_of_that_reward_alone() -> None:
    rewards = {
        "bug": Constant(weight=1.0, raises="bug"),
        "nan": Constant(weight=1.0, verdict=graded(float("nan"))),
        "sound": Constant(weight=1.0),
    }
    (result,) = judged(RewardFunction(rewards), ("x", "y"))
    assert result == RewardResult({"bug": CRASH, "nan": CRASH, "sound": RIGHT}, reward=1.0)


@pytest.mark.parametrize("value", [-1e39, 10**309, "0.5", None, 2j])
def test_a_value_that_float32_does_not_have_is_a_crash(value: object) -> None:
    rewards = {
        "odd": Loose(weight=1.0, returns=Score(value, "graded")),
        "sound": Constant(weight=2.0),
    }  # type: ignore[arg-type]
    (result,) = judged(RewardFunction(rewards), ("x", "y"))
    assert result == RewardResult({"odd": CRASH, "sound": RIGHT}, reward=2.0)


def test_a_number_of_another_library_becomes_a_plain_one() -> None:
    import numpy as np

    rewards = {"numpy": Loose(weight=0.5, returns=Score(np.float32(0.25), "graded"))}  # type: ignore[arg-type]
    (result,) = judged(RewardFunction(rewards), ("x", "y"))
    assert result == RewardResult({"numpy": graded(0.25)}, reward=0.125)
    assert type(result.scores["numpy"].value) is float


@pytest.mark.parametrize("returns", [0.5, None, (1.0, "right"), Score(1.0, "good"), Score(1.0, [])])  # type: ignore[arg-type]
def test_a_reward_that_returns_no_verdict_ends_the_run_by_its_name(returns: object) -> None:
    rewards = {"a.own": Loose(weight=1.0, returns=returns)}
    with pytest.raises(
        RunError, match=r"rewards\.a\.own: expected a Score with one of .*right, wrong"
    ):
        judged(RewardFunction(rewards), ("x", "y"))


@pytest.mark.parametrize("weights", [(1e30, 0.0), (1e308, 1e308)])
def test_a_sum_that_float32_does_not_hold_ends_the_run_before_it_is_stored(
    weights: tuple[float, float],
) -> None:
    high, low = (
        Constant(weight=w, verdict=graded(v)) for w, v in zip(weights, (1e9, -1e9), strict=True)
    )
    with pytest.raises(RunError, match=r"add up to .*more than float32 holds .*lower the weights"):
        judged(RewardFunction({"high": high, "low": low}), ("x", "y"))


def test_a_reward_that_cannot_go_on_ends_the_run() -> None:
    with pytest.raises(RunError, match="the judge is gone"):
        judged(RewardFunction({"judge": Constant(weight=1.0, raises="stop")}), ("x", "y"))


def test_what_was_started_is_ended_even_if_a_later_reward_cannot_start() -> None:
    events.clear()
    good, bad = Constant(weight=1.0), Constant(weight=1.0, raises="start")
    with pytest.raises(RunError, match="no such server"):
        judged(RewardFunction({"good": good, "bad": bad}), ("x", "y"))
    assert events == ["start", "end"]


def test_without_a_reward_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="at least one reward"):
        RewardFunction({})
