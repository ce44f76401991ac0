"""Views of stored samples for the report and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.monitoring.sample_view import SampleView, Verdict
from engine.rollout.sample import Sample


def sample_view(sample: Sample, decode: Callable[[Sequence[int]], str]) -> SampleView:
    """Return a sample with the verdicts of all rewards; ``decode`` turns token ids into text."""
    return SampleView(
        prompt_id=sample.prompt_id,
        prompt=decode(sample.prompt_tokens),
        response=sample.text,
        answer=sample.answer,
        verdicts={
            name: Verdict(score.value, score.outcome) for name, score in sample.scores.items()
        },
        reward=sample.reward,
    )


def first_answers(samples: Sequence[Sample], problems: int) -> list[Sample]:
    """Return the first answer to each of the first problems: chosen before anybody saw them."""
    firsts = [sample for sample in samples if sample.index == 0]
    return sorted(firsts, key=lambda sample: sample.group)[:problems]
