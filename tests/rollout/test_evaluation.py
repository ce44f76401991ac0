"""An evaluation counts every prompt the same and only what was found right."""

from __future__ import annotations

import pytest
from made_samples import make_group

from engine.rewards.score import CRASH, RIGHT, TIMEOUT, UNPARSABLE, WRONG, Score
from engine.rollout.evaluation import Evaluation, evaluate
from engine.rollout.sample import Sample


def group_of(group: int, accuracy: list[Score], well_formed: list[Score], lengths: list[int]):
    made = make_group(group, len(accuracy))
    return [
        Sample(
            **{
                **vars(sample),
                "scores": {"accuracy": accuracy[i], "format": well_formed[i]},
                "tokens": [5] * lengths[i],
                "logprobs": [-1.0] * lengths[i],
            }
        )
        for i, sample in enumerate(made)
    ]


def test_accuracy_is_the_mean_over_prompts_of_the_share_of_right_samples():
    samples = [
        *group_of(0, [RIGHT, WRONG], [RIGHT, RIGHT], [10, 20]),
        *group_of(1, [RIGHT] * 4, [WRONG] * 4, [1, 1, 1, 1]),
    ]
    assert evaluate(samples) == Evaluation(
        prompts=2, samples=6, accuracy=0.75, response_length=8.0, format_rate=0.5
    )


def test_only_right_is_right_whatever_the_value():
    verdicts = [WRONG, UNPARSABLE, TIMEOUT, CRASH, Score(0.5, "wrong")]
    samples = group_of(0, verdicts, [RIGHT] * 5, [3] * 5)
    assert evaluate(samples).accuracy == 0
    assert evaluate(samples).format_rate == 1


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="without samples"):
        evaluate([])
    unscored = [Sample(**{**vars(make_group(0, 1)[0]), "scores": {}})]
    with pytest.raises(KeyError, match="accuracy"):
        evaluate(unscored)
