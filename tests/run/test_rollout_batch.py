"""A rollout becomes minibatches: every sample once, its own numbers at its own tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.algorithms.dapo import Dapo
from engine.algorithms.grpo import Grpo
from engine.algorithms.gspo import Gspo
from engine.data.batch_builder import Packing
from engine.monitoring.phases import Phases
from engine.rewards.score import Score
from engine.rollout.sample import Sample
from engine.run.rollout_batch import RolloutBatch, RolloutRow

ROOM = 64


def sample(group: int, index: int, length: int, reward: float) -> Sample:
    return Sample(
        prompt_id=f"prompt-{group}",
        group=group,
        index=index,
        prompt_tokens=[1, 2, 3],
        tokens=[10 * group + index + 1] * length,  # known by its tokens
        logprobs=[-0.5] * length,
        weight_version=0,
        finish_reason="stop",
        text="",
        answer="7",
        reward=reward,
        scores={"accuracy": Score(reward, "graded")},
        requested_at=0.0,
        finished_at=0.0,
        scored_at=0.0,
    )


def batch(samples, algorithm, minibatches=1, *, rank=0, ranks=1, room=ROOM) -> RolloutBatch:
    return RolloutBatch(
        samples,
        algorithm,
        Packing(rank, ranks, room),
        minibatches=minibatches,
        max_length=30,
        seed=3,
        device="cpu",
        phases=Phases(),
    )


def rows(made: RolloutBatch) -> list[RolloutRow]:
    return [row for part in made.minibatches for row in part.rows]


GROUPS = [
    [sample(0, i, length, reward) for i, (length, reward) in enumerate([(3, 1), (5, 0), (9, 1)])],
    [sample(1, i, length, 1.0) for i, length in enumerate([4, 2, 7])],
    [sample(2, i, length, reward) for i, (length, reward) in enumerate([(30, 0), (1, 0), (2, 3)])],
]
ALL = [one for group in GROUPS for one in group]


@pytest.mark.parametrize("minibatches", [1, 3])
def test_every_sample_is_trained_on_once_with_its_own_numbers(minibatches):
    made = batch(ALL, Grpo(), minibatches)
    found = [one for row in rows(made) for one in row.samples]
    assert sorted((s.group, s.index) for s in found) == [(s.group, s.index) for s in ALL]
    rewards = torch.tensor([s.reward for s in ALL])
    groups = torch.tensor([s.group for s in ALL])
    advantages = Grpo().advantages(rewards, groups)
    for row in rows(made):
        of_samples = zip(
            row.samples,
            row.packed.gather(row.advantages),
            row.packed.gather(row.weights),
            strict=True,
        )
        for one, advantage, weight in of_samples:
            assert (advantage == advantages[ALL.index(one)]).all()
            expected = minibatches / (len(ALL) * len(one.tokens))
            torch.testing.assert_close(weight, torch.full_like(weight, expected))


def test_two_ranks_share_the_samples():
    found = [
        one
        for rank in (0, 1)
        for row in rows(batch(ALL, Grpo(), rank=rank, ranks=2))
        for one in row.samples
    ]
    assert sorted((s.group, s.index) for s in found) == [(s.group, s.index) for s in ALL]


def test_groups_that_the_algorithm_rejects_are_left_out_and_counted():
    made = batch(ALL, Dapo())
    assert {one.group for one in made.trained} == {0, 2}
    assert (made.groups, made.zero_variance_groups) == (3, 1)
    assert made.samples == ALL


def test_where_all_groups_are_rejected_nothing_pulls_on_the_policy():
    wrong = [sample(0, 0, 30, 0.0), sample(0, 1, 29, 0.0), sample(0, 2, 3, 0.0)]
    made = batch(wrong, Dapo())  # whose overlong punishment tells the three apart
    assert made.trained == wrong
    assert all((row.advantages == 0).all() for row in rows(made))


def test_fewer_samples_than_minibatches_are_fewer_minibatches():
    alone = [sample(0, 0, 3, 1.0), sample(0, 1, 4, 0.0), *GROUPS[1]]
    assert len(batch(alone, Dapo(), minibatches=4).minibatches) == 2


@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    values=st.randoms(use_true_random=False),
)
@settings(max_examples=30)
def test_a_sample_mean_is_the_mean_of_its_response_tokens(lengths, values):
    samples = [sample(0, i, length, float(i)) for i, length in enumerate(lengths)]
    for row in rows(batch(samples, Gspo(), room=256)):
        given_values = torch.tensor([values.uniform(-1, 1) for _ in row.packed.tokens])
        means = row.sample_mean(given_values)
        assert (means[~row.packed.response_mask] == 0).all()
        for part, mean in zip(
            row.packed.gather(given_values), row.packed.gather(means), strict=True
        ):
            torch.testing.assert_close(mean, part.mean().expand_as(mean))


@pytest.mark.parametrize("algorithm", [Grpo(), Dapo(), Gspo()], ids=lambda a: type(a).__name__)
def test_the_mean_over_minibatches_is_the_loss_of_the_whole(algorithm):
    def loss(minibatches: int, room: int) -> float:
        made = batch(GROUPS[0] + GROUPS[2], algorithm, minibatches, room=room)
        total = 0.0
        for row in rows(made):
            logp = -0.1 * (1 + row.packed.labels.float() % 7)
            old = logp - 0.03 * (row.packed.labels % 4)
            filled = replace(row, old_logp=old, reference_logp=logp + 0.02)
            total += float(algorithm.loss(logp, torch.zeros_like(logp), filled)[0])
        return total / minibatches

    whole = loss(1, 512)
    for minibatches, room in ((1, 40), (2, 64), (3, 33)):
        assert loss(minibatches, room) == pytest.approx(whole, rel=1e-5)
