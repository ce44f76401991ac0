"""Format reward: check that an answer is laid out as the template of R1-Zero asks.

DeepSeek-R1 (arXiv 2501.12948 v1, section 2.2.2): the reasoning stands between ``<think>`` and
``</think>``, the answer between ``<answer>`` and ``</answer>``.
"""

from __future__ import annotations

from engine.rewards.reward import Answer, Reward
from engine.rewards.score import RIGHT, WRONG, Score

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class FormatReward(Reward):
    """Is the answer ``<think>...</think><answer>...</answer>``, and nothing else?"""

    def hopeless(self, asked: str, reference: str) -> str | None:
        """See :class:`Reward`: a prompt that opens the reasoning leaves no tag to be written."""
        if not asked.rstrip().endswith("<think>"):
            return None
        return "the prompt itself ends with <think>, which the answer has to begin with"

    async def score(self, answer: Answer) -> Score:
        """Return right or wrong, see :func:`score_format`."""
        return score_format(answer.response)


REWARD = FormatReward


def score_format(response: str) -> Score:
    """Return right (1.0) for ``<think>...</think> <answer>...</answer>``, wrong (0.0) otherwise.

    Each tag occurs exactly once, in this order, and outside of the two pairs there is only
    whitespace. What stands inside them is not looked at. Time is linear in the length.
    """
    if any(response.count(tag) != 1 for tag in _TAGS):
        return WRONG
    before, _, rest = response.partition("<think>")
    _, closed, rest = rest.partition("</think>")
    between, opened, rest = rest.partition("<answer>")
    _, ended, after = rest.partition("</answer>")
    in_order = bool(closed and opened and ended)
    outside_is_empty = not (before + between + after).strip()
    return RIGHT if in_order and outside_is_empty else WRONG
