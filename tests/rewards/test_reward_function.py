from __future__ import annotations

import asyncio
import time

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
