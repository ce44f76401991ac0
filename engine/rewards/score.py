"""Verdict of one reward on one answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Outcome = Literal["right", "wrong", "graded", "unparsable", "timeout", "crash"]
"""How a verdict came about.

``right`` / ``wrong``: the answer was judged. ``graded``: it was judged, and the value says how good
it is; such a reward knows no right and wrong, and grades an answer with nothing to judge, too.
``unparsable``: there was no single answer to judge, of a reward that says right or wrong.
``timeout``: judging it took longer than the deadline. ``crash``: judging it raised, or killed the
process that judged. The last two say something about the reward too; a run that counts them as
``wrong`` cannot tell a broken verifier from a weak policy.
"""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Score:
    """Value of one reward for one answer, before its weight, and how it came about."""

    value: float
    outcome: Outcome


RIGHT = Score(1.0, "right")
WRONG = Score(0.0, "wrong")
UNPARSABLE = Score(0.0, "unparsable")
TIMEOUT = Score(0.0, "timeout")
CRASH = Score(0.0, "crash")


def graded(value: float) -> Score:
    """Return the verdict of a reward that says how good an answer is, not whether it is right.

    Such a reward returns it for every answer, with the value that an answer without anything to
    judge is worth: that a reward grades is known from the outcomes, see :func:`are_graded`.
    """
    return Score(value, "graded")


def are_graded(scores: Iterable[Score]) -> bool:
    """Return whether these are the verdicts of a reward that grades: one of them is ``graded``."""
    return any(score.outcome == "graded" for score in scores)
