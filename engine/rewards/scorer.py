"""All rewards of a run, on one answer: each verdict by name, and their weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from engine.config.sampler import RewardsConfig
from engine.rewards import accuracy
from engine.rewards.format import score_format
from engine.rewards.score import Score
from engine.rewards.workers import WorkerPool


@dataclass(frozen=True, slots=True)
class RewardResult:
    """Every reward's verdict on one answer, and ``reward``, the sum of weight times value."""

    scores: dict[str, Score]
    reward: float


class Scorer:
    """The rewards of R1-Zero (DeepSeek-R1 v1, section 2.2.2), as the section ``rewards`` says.

    An ``async with`` block starts the workers of the accuracy reward, and ends them.
    """

    def __init__(self, config: RewardsConfig) -> None:
        self._config = config
        self._verifiers = WorkerPool(
            accuracy.__name__,
            workers=config.accuracy.workers,
            deadline_seconds=config.accuracy.deadline_seconds,
        )

    async def __aenter__(self) -> Self:
        await self._verifiers.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._verifiers.__aexit__(*exception)

    async def score(self, response: str, reference: str) -> RewardResult:
        """Judge the text of one response; call it for a whole group at once with asyncio.gather.

        Raises RunError if a worker cannot be started any more.
        """
        correct = accuracy.score_plain(response, reference)
        if correct is None:
            correct = await self._verifiers.score(response, reference)
        well_formed = score_format(response)
        reward = (
            self._config.accuracy.weight * correct.value
            + self._config.format.weight * well_formed.value
        )
        return RewardResult(scores={"accuracy": correct, "format": well_formed}, reward=reward)
