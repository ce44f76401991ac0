"""The metrics of samples are those of the rewards that scored them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_samples import make_group

from engine.rewards.score import CRASH, RIGHT, TIMEOUT, WRONG, graded
from engine.rewards.table import REWARDS
from engine.rollout.metrics import evaluation_metrics, is_reflective, rollout_metrics
from engine.rollout.sample import Sample
from engine.rollout.sample_views import first_answers, sample_view


def samples() -> list[Sample]:
    scores = [
        {"format": RIGHT, "my_folder.brevity": graded(0.5)},
        {"format": WRONG, "my_folder.brevity": graded(-1.5)},
        {"format": TIMEOUT, "my_folder.brevity": graded(0.0)},
        {"format": RIGHT, "my_folder.brevity": CRASH},
    ]
    return [
        replace(
            sample,
            scores=one,
            reward=2.0 * i,
            text="so" if i else "Wait, so",
            finish_reason="length" if i == 2 else "stop",
            tokens=[5] * (i + 1),
            logprobs=[-1.0] * (i + 1),
        )
        for i, (sample, one) in enumerate(zip(make_group(0, 4), scores, strict=True))
    ]


def test_every_reward_has_its_mean_and_its_outcomes():
    assert rollout_metrics(samples()) == {
        "reward/format": 0.5,
        "reward/my_folder.brevity": -0.25,
        "reward/mean": 3.0,
        "outcome/format/right": 0.5,
        "outcome/format/wrong": 0.25,
        "outcome/format/timeout": 0.25,
        "outcome/my_folder.brevity/graded": 0.75,
        "outcome/my_folder.brevity/crash": 0.25,
        "rollout/response_length": 2.5,
        "rollout/tokens": 10,
        "rollout/truncated": 0.25,
        "rollout/reflection": 0.25,
    }


def test_an_evaluation_says_the_share_right_or_the_mean_value():
    assert evaluation_metrics(samples()) == {
        "evaluation/format": 0.5,
        "evaluation/my_folder.brevity": -0.25,
        "evaluation/response_length": 2.5,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start 3 ; wait start 3 ;", True),
        ("Wait, that is wrong.", True),
        ("始 3 ; 等 始 3", True),  # the chain task's word for wait
        ("所以答案是7。等一下，我算错了。", True),
        ("等等，这一步需要再看看", True),
        ("这个结果不对。", True),
        ("我们重新检查一遍", True),
        ("嗯，等，再想想", True),
        ("两边相等，所以大于等于3", False),
        ("矩阵不对称", False),  # not symmetric
        ("a waiter serves", False),
        ("", False),
    ],
)
def test_second_thoughts_are_words_of_their_own(text: str, expected: bool):
    assert is_reflective(replace(samples()[0], text=text)) is expected


def test_no_known_reward_is_called_as_another_metric_is():
    assert not {"mean", "response_length"} & REWARDS.keys()
    assert not [name for name in REWARDS if "." in name or "/" in name]


def test_a_sample_is_shown_with_the_verdicts_of_all_rewards():
    view = sample_view(samples()[1], lambda tokens: f"{len(tokens)} tokens")
    assert (view.prompt, view.response, view.reward) == ("12 tokens", "so", 2.0)
    assert {name: one.text for name, one in view.verdicts.items()} == {
        "format": "wrong",
        "my_folder.brevity": "-1.5",
    }


def test_the_samples_that_are_shown_are_chosen_before_anybody_saw_them():
    stored = [*make_group(2), *make_group(0), *make_group(1)]
    chosen = first_answers(stored, problems=2)
    assert [(sample.group, sample.index) for sample in chosen] == [(0, 0), (1, 0)]
