"""A sample as TensorBoard and the report show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What one reward thought of an answer."""

    value: float  # before its weight
    outcome: str  # right, wrong, graded, unparsable, timeout, crash

    @property
    def text(self) -> str:
        """The outcome, and the value where the outcome does not tell it."""
        if self.outcome == "graded":
            return f"{self.value:.3g}"
        usual = 1.0 if self.outcome == "right" else 0.0
        return self.outcome if self.value == usual else f"{self.outcome}, {self.value:.3g}"


@dataclass(frozen=True)
class SampleView:
    """One answer of the policy and what the rewards thought of it."""

    prompt_id: str
    prompt: str
    response: str
    answer: str  # the reference answer
    verdicts: Mapping[str, Verdict]  # of every reward, by its name
    reward: float  # the weighted sum

    def markdown(self) -> str:
        """Return the sample for TensorBoard's text tab, where model text must not be markup."""
        verdicts = "".join(f"{name} **{one.text}**, " for name, one in self.verdicts.items())
        verdict = f"{verdicts}reward {self.reward:g}, reference answer `{self.answer}`"
        return "\n\n".join(
            [verdict, _indented(self.prompt), _indented(self.response), f"prompt {self.prompt_id}"]
        )


def _indented(text: str) -> str:
    # An indented block, because no fence is safe from text that contains the fence.
    return "\n".join("    " + line for line in text.split("\n"))
