"""A sample as a person reads it: in TensorBoard and in the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SampleView:
    """One answer of the policy and what the rewards thought of it."""

    prompt_id: str
    prompt: str
    response: str
    answer: str  # the reference answer
    outcome: str  # of the accuracy reward: right, wrong, unparsable, timeout, crash
    reward: float

    def markdown(self) -> str:
        """Return the sample for TensorBoard's text tab, where model text must not be markup."""
        verdict = f"**{self.outcome}**, reward {self.reward:g}, reference answer `{self.answer}`"
        return "\n\n".join(
            [verdict, _indented(self.prompt), _indented(self.response), f"prompt {self.prompt_id}"]
        )


def _indented(text: str) -> str:
    # An indented block, because no fence is safe from text that contains the fence.
    return "\n".join("    " + line for line in text.split("\n"))
