"""Compute metrics of stored samples by name, for every reward that judged them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from engine.monitoring import metric_names as names
from engine.rollout.evaluation import evaluate
from engine.rollout.sample import Sample

REFLECTIVE_WORDS = frozenset(
    {"wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate"}
    | {"check", "等"}
)
"""Words by which the paper saw reflection grow (DeepSeek-R1 v2, supplement); and ``等``, wait, as
the chain task has it: a word of its own."""
CHINESE_REFLECTION = re.compile("等等|等一下|不对(?!称)|重新检查")
"""Wait (also: and so on), wait a moment, not right (not: asymmetric), check again. They are found
inside of sentences: Chinese has no spaces between words."""
_WORD = re.compile(r"\w+")


def rollout_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the metrics of a rollout: means and shares over its samples (at least one).

    For each reward its mean value and the share of samples with each outcome that occurs; the mean
    of the weighted sum; response length, tokens, shares of truncated and of reflective samples.
    """
    rewards: dict[str, float] = {}
    outcomes: dict[str, float] = {}
    for name in samples[0].scores:
        scores = [sample.scores[name] for sample in samples]
        rewards[names.reward(name)] = fmean(score.value for score in scores)
        for outcome, count in Counter(score.outcome for score in scores).items():
            outcomes[names.outcome(name, outcome)] = count / len(samples)
    return {
        **rewards,
        names.REWARD_MEAN: fmean(sample.reward for sample in samples),
        **outcomes,
        names.RESPONSE_LENGTH: fmean(len(sample.tokens) for sample in samples),
        names.RESPONSE_TOKENS: sum(len(sample.tokens) for sample in samples),
        names.TRUNCATED: fmean(sample.finish_reason == "length" for sample in samples),
        names.REFLECTION: fmean(map(is_reflective, samples)),
    }


def evaluation_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the metrics of one evaluation; raises as :func:`engine.rollout.evaluation.evaluate`.

    For each reward the share of answers that it finds right, or its mean value if it grades.
    """
    found = evaluate(samples)
    return {
        **{names.evaluation(name): measure.value for name, measure in found.rewards.items()},
        names.EVALUATION_RESPONSE_LENGTH: found.response_length,
    }


def is_reflective(sample: Sample) -> bool:
    """Return whether a sample has a word of second thought.

    One of :data:`REFLECTIVE_WORDS` as a whole word, or :data:`CHINESE_REFLECTION` anywhere.
    """
    if CHINESE_REFLECTION.search(sample.text):
        return True
    return not REFLECTIVE_WORDS.isdisjoint(_WORD.findall(sample.text.lower()))
