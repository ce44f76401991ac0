"""The verdict of one reward on one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["right", "wrong", "unparsable", "timeout", "crash"]
"""How a verdict came about.

``right`` / ``wrong``: the answer was judged. ``unparsable``: there was no single answer to judge.
``timeout``: judging it took longer than the deadline. ``crash``: judging it raised, or killed the
process that judged. The last two say something about the scorer too; a run that counts them as
``wrong`` cannot tell a broken verifier from a weak policy.
"""


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
