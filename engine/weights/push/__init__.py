"""Pushes: ways of giving the servers new weights, one file each."""

from __future__ import annotations

from typing import Protocol


class WeightPush(Protocol):
    """Gives all servers the policy's weights as they are now."""

    def __call__(self, version: int) -> None:
        """Make the weights ``version``. Called by all trainer ranks together.

        When it returns, on any rank, every server has said that it has them. Saying so to anybody
        else is the caller's part.

        Raises:
            RunError: the weights could not be passed on, or servers could not take them; the same
                sentence on all ranks.
        """
        ...
