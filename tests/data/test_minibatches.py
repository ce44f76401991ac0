"""The invariants that ``plan_minibatches`` states, one test each."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.minibatches import Minibatch, plan_minibatches
from engine.data.packing import pack, padded_length
from engine.errors import RunError


@dataclass(frozen=True)
class Case:
    lengths: list[int]
    minibatches: int
    ranks: int
    capacity: int
    seed: int

    def plan(self) -> list[Minibatch]:
        return plan_minibatches(
            self.lengths, self.minibatches, self.ranks, self.capacity, self.seed
        )

    def tokens(self, samples) -> int:
        return sum(self.lengths[sample] for sample in samples)


@st.composite
def long_tailed(draw) -> Case:
    """A rollout as R1's: most responses are short, some are as long as a row."""
    limit = draw(st.sampled_from([1024, 32768]))
    median, spread = limit / draw(st.floats(4, 64)), draw(st.floats(0.5, 2))
    random = Random(draw(st.integers(0, 2**32)))
    lengths = [
        1 + min(limit - 1, int(random.lognormvariate(log(median), spread)))
        for _ in range(draw(st.integers(1, 300)))
    ]
    return Case(
        lengths,
        minibatches=draw(st.integers(1, min(4, len(lengths)))),
        ranks=draw(st.sampled_from([1, 2, 5, 16])),
        capacity=limit,
        seed=0,
    )


@st.composite
def short_lists(draw) -> Case:
    capacity = draw(st.integers(1, 60))
    lengths = draw(st.lists(st.integers(1, capacity), min_size=1, max_size=60))
    return Case(
        lengths,
        minibatches=draw(st.integers(1, min(4, len(lengths)))),
        ranks=draw(st.integers(1, 5)),
        capacity=capacity,
        seed=draw(st.integers(0, 2**32)),
    )


def for_any_case(test):
    return given(case=short_lists() | long_tailed())(test)


@for_any_case
def test_every_sample_is_in_exactly_one_row(case: Case) -> None:
    planned = [sample for minibatch in case.plan() for sample in minibatch.samples]
    assert sorted(planned) == list(range(len(case.lengths)))


@for_any_case
def test_minibatches_have_equal_numbers_of_samples_give_or_take_one(case: Case) -> None:
    sizes = [len(minibatch.samples) for minibatch in case.plan()]
    assert len(sizes) == case.minibatches
    assert max(sizes) - min(sizes) <= 1


@for_any_case
def test_no_row_exceeds_tokens_per_microbatch(case: Case) -> None:
    for minibatch in case.plan():
        for rank in minibatch.rows:
            assert all(case.tokens(row) <= case.capacity for row in rank)


@for_any_case
def test_all_ranks_have_the_same_number_of_rows(case: Case) -> None:
    for minibatch in case.plan():
        assert len(minibatch.rows) == case.ranks
        assert len({len(rank) for rank in minibatch.rows}) == 1
        assert minibatch.rows[0]


@for_any_case
def test_an_empty_row_only_where_samples_have_run_out(case: Case) -> None:
    for minibatch in case.plan():
        for rank in minibatch.rows:
            if () in rank:
                assert all(len(row) <= 1 for row in rank)


@for_any_case
def test_ranks_differ_in_tokens_by_at_most_the_longest_sample(case: Case) -> None:
    for minibatch in case.plan():
        loads = [sum(case.tokens(row) for row in rank) for rank in minibatch.rows]
        longest = max(case.lengths[sample] for sample in minibatch.samples)
        assert max(loads) - min(loads) <= longest


@for_any_case
def test_rows_are_few(case: Case) -> None:
    for minibatch in case.plan():
        longest = max(case.lengths[sample] for sample in minibatch.samples)
        with_room = [
            sum(case.tokens(row) + longest <= case.capacity for row in rank)
            for rank in minibatch.rows
        ]
        assert min(with_room) <= 1
        # on the rank that decides their number, no two rows would fit into one
        emptiest = [[case.tokens(row) for row in rank[-2:]] for rank in minibatch.rows]
        assert any(len(two) < 2 or sum(two) > case.capacity for two in emptiest)
        # and so, with L the longest sample: rows - 1 < (a rank's tokens) / (capacity - L)
        load = max(sum(case.tokens(row) for row in rank) for rank in minibatch.rows)
        count = len(minibatch.rows[0])
        assert count == 1 or count < 2 * load / case.capacity + 1
        assert (count - 1) * (case.capacity - longest) <= load


@for_any_case
def test_rows_run_from_the_fullest_to_the_emptiest(case: Case) -> None:
    for minibatch in case.plan():
        for rank in minibatch.rows:
            fill = [case.tokens(row) for row in rank]
            assert fill == sorted(fill, reverse=True)


@for_any_case
def test_the_plan_depends_on_the_arguments_only(case: Case) -> None:
    assert case.plan() == case.plan()


@given(short_lists() | long_tailed(), st.integers(2, 4))
def test_rows_come_in_multiples_where_asked(case: Case, multiple: int) -> None:
    """As few as that allows; every other invariant holds as it does without."""
    lengths, capacity = case.lengths, case.capacity
    plan = plan_minibatches(lengths, case.minibatches, case.ranks, capacity, case.seed, multiple)
    for minibatch, without in zip(plan, case.plan(), strict=True):
        assert minibatch.samples == without.samples
        least = len(without.rows[0])
        assert {len(rank) for rank in minibatch.rows} == {-(-least // multiple) * multiple}
        for rank, rank_without in zip(minibatch.rows, without.rows, strict=True):
            assert sorted(sum(rank, ())) == sorted(sum(rank_without, ()))
            assert () not in rank or all(len(row) <= 1 for row in rank)
            fill = [case.tokens(row) for row in rank]
            assert fill == sorted(fill, reverse=True)
            assert fill[0] <= capacity


def test_the_seed_decides_which_sample_goes_where() -> None:
    lengths = [5] * 64
    parts = {tuple(plan_minibatches(lengths, 2, 1, 64, seed)[0].samples) for seed in range(20)}
    assert len(parts) == 20


def test_hand_computed_plan() -> None:
    # Longest first, to the emptier rank: 9 to 0, 8 to 1, 7 to 1, 4 to 0, 3 to 0, 2 to 1.
    (minibatch,) = plan_minibatches([4, 9, 2, 7, 8, 3], 1, 2, 12, seed=0)
    # Best fit into rows of 12: rank 0 has 9 + 3 and 4, rank 1 has 8 + 2 and 7.
    assert minibatch.rows == (((1, 5), (0,)), ((2, 4), (3,)))


def test_a_rank_with_fewer_rows_splits_its_fullest_and_then_gets_empty_ones() -> None:
    # The sample of length 1 makes a second row on rank 0; the other ranks have nothing to split.
    (few,) = plan_minibatches([10, 10, 10, 1], 1, 3, 10, seed=0)
    assert few.rows == (((0,), (3,)), ((1,), ()), ((2,), ()))
    # Rank 0 gets 9 and 4, which are two rows; rank 1's 5 + 4 would be one.
    (split,) = plan_minibatches([9, 5, 4, 4], 1, 2, 10, seed=0)
    assert split.rows == (((0,), (3,)), ((1,), (2,)))


def test_a_typical_rollout_fills_its_rows() -> None:
    """256 samples of 22 to 110 tokens, as in the quickstart: within one row of the lower bound."""
    lengths = [22 + (37 * i) % 89 for i in range(256)]
    for minibatch in plan_minibatches(lengths, 2, 2, 2048, seed=1):
        total = sum(lengths[sample] for sample in minibatch.samples)
        assert len(minibatch.rows[0]) <= -(-total // (2 * 2048)) + 1


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_rows_planned_by_padded_lengths_fit_when_samples_are_padded(sizes, ranks, cp) -> None:
    """Real lengths would not do: three samples of 7 fill a row of 21, padded to 8 they do not."""
    lengths = [padded_length(prompt, response, 2 * cp) for prompt, response in sizes]
    (minibatch,) = plan_minibatches(lengths, 1, ranks, 36, seed=0)
    for row in (row for rank in minibatch.rows for row in rank):
        samples = [([1] * sizes[i][0], [2] * sizes[i][1]) for i in row]
        packed = pack(samples, row_multiple=2 * cp, sample_multiple=2 * cp)
        assert len(packed.tokens) <= 36


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(RunError, match=r"sample 1 has 9 tokens.*tokens_per_microbatch \(8\)"):
        plan_minibatches([3, 9], 1, 1, 8, seed=0)


def test_more_minibatches_than_samples_are_refused() -> None:
    with pytest.raises(RunError, match="2 samples cannot be split into 3 minibatches"):
        plan_minibatches([3, 3], 3, 1, 8, seed=0)
