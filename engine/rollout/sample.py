"""A sample: one answer to one prompt, its log-probabilities and rewards."""

from __future__ import annotations

from dataclasses import dataclass

from engine.rewards.score import Score


@dataclass(frozen=True)
class Sample:
    """One answer of a group.

    ``tokens`` are the response as the server gave it, its end-of-sequence token included;
    ``logprobs`` (nats) are the sampler's own, one per token of ``tokens``, after the temperature.
    ``text`` is the decoded response without the end-of-sequence token. Times are unix seconds.

    Raises:
        ValueError: ``logprobs`` is not as long as ``tokens``.
    """

    prompt_id: str
    group: int
    index: int  # of the sample within its group
    prompt_tokens: list[int]
    tokens: list[int]
    logprobs: list[float]
    weight_version: int
    finish_reason: str  # stop | length | abort
    text: str
    answer: str  # the reference answer of the prompt
    reward: float  # sum over the rewards of weight times value
    scores: dict[str, Score]
    requested_at: float
    finished_at: float
    scored_at: float

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.logprobs):
            raise ValueError(
                f"prompt {self.prompt_id}, sample {self.index}: {len(self.tokens)} tokens, "
                f"but {len(self.logprobs)} log-probabilities"
            )
