"""Base class of rewards: frozen sections of the configuration that judge answers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

from pydantic import Field

from engine.config.section import Section
from engine.rewards.score import Score


@dataclass(frozen=True, slots=True)
class Answer:
    """One response and what it answers, as texts."""

    prompt: str  # the problem, without the template around it
    response: str  # what the policy wrote, without the end-of-sequence token
    reference: str  # the reference answer of the problem


class Reward(Section):
    """Base class of all rewards: fields are the options, :meth:`score` does the work.

    A module names its subclass in the variable ``REWARD``. An ``async with`` block around all calls
    of :meth:`score` starts what the reward needs (processes, connections), and ends it.
    """

    weight: float = Field(ge=0, description="factor of this reward in the sum")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    def hopeless(self, asked: str, reference: str) -> str | None:
        """Return why no answer to a prompt can earn this reward; None where one may.

        Asked before a run, of every problem: by reading alone, in microseconds.

        Args:
            asked: the whole prompt, template included.
            reference: the reference answer of the problem.
        """
        return None

    @abstractmethod
    async def score(self, answer: Answer) -> Score:
        """Return the verdict on one answer, before the weight.

        It runs in the sampler's event loop, beside the scoring of many other answers: what may take
        long or for ever belongs into a :class:`engine.rewards.workers.WorkerPool`. An exception
        counts as the outcome ``crash``, except for RunError, which ends the run.
        """
