"""Judge an answer by all rewards of a run: each verdict by name, and their weighted sum."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from engine.errors import RunError
from engine.rewards.reward import Answer, Reward
from engine.rewards.score import CRASH, OUTCOMES, Score

log = logging.getLogger(__name__)

LARGEST = 3.4028234663852886e38
"""Largest number of float32, in which values are stored and advantages computed."""


@dataclass(frozen=True, slots=True)
class RewardResult:
    """Every reward's verdict on one answer, and ``reward``, the sum of weight times value."""

    scores: dict[str, Score]
    reward: float


class RewardFunction:
    """The rewards of a run, by the names under which the configuration has them.

    An ``async with`` block starts what they need (the workers of the accuracy reward, for
    instance), and ends it.
    """

    def __init__(self, rewards: Mapping[str, Reward]) -> None:
        """Take the rewards; ValueError if there is none: every answer would be worth the same."""
        if not rewards:
            raise ValueError("expected at least one reward")
        self._rewards = dict(rewards)
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:  # leaves those that have started, if one cannot
            for reward in self._rewards.values():
                await stack.enter_async_context(reward)
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._entered.aclose()

    async def score(self, answer: Answer) -> RewardResult:
        """Judge one answer by one reward after the other; call it for many answers at once.

        What waits, waits beside other answers: a task for each reward and answer would cost several
        times as much as most verdicts do. A reward that raises, or whose value is no finite number
        of float32, has the outcome ``crash``.

        Raises:
            RunError: a reward cannot go on, for instance a worker could not be started any more; it
                returns something else than a :class:`Score`; or the weighted sum is beyond float32.
        """
        scores = {
            name: await _score(name, reward, answer) for name, reward in self._rewards.items()
        }
        weighted = (self._rewards[name].weight * score.value for name, score in scores.items())
        reward = sum(weighted)
        if not abs(reward) <= LARGEST:  # stored, it would end every start of the run
            raise RunError(
                f"rewards: the values of an answer, times their weights, add up to {reward:g}, "
                f"more than float32 holds ({', '.join(self._rewards)}); lower the weights"
            )
        return RewardResult(scores, reward)


async def _score(name: str, reward: Reward, answer: Answer) -> Score:
    try:
        score = await reward.score(answer)
    except RunError:
        raise
    except Exception as error:
        log.warning("reward %s raised %s: %s", name, type(error).__name__, str(error)[:300])
        return CRASH
    if not isinstance(score, Score) or score.outcome not in OUTCOMES:
        raise RunError(
            f"rewards.{name}: expected a Score with one of the outcomes {', '.join(OUTCOMES)}, its "
            f"score() returned {repr(score)[:100]}; see engine/rewards/README.md"
        )
    try:
        value = float(score.value) if math.isfinite(score.value) else math.nan  # refuses texts
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not abs(value) <= LARGEST:
        log.warning("reward %s gave an answer the value %s", name, repr(score.value)[:100])
        return CRASH
    return score if value is score.value else Score(value, score.outcome)
