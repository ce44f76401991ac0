"""Grouping a batch for padding loses no request and wastes a bounded part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.platform.sglang_cpu.padding import FREE_SCORES, groups

REQUESTS = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=1, max_size=60)


@given(REQUESTS)
def test_every_request_is_in_exactly_one_group(requests):
    new = [n for n, _ in requests]
    total = [n + prefix for n, prefix in requests]
    assert sorted(i for group in groups(new, total) for i in group) == list(range(len(new)))


@given(REQUESTS)
def test_padding_at_most_doubles_the_scores_beyond_what_is_free(requests):
    new = [n for n, _ in requests]
    total = [n + prefix for n, prefix in requests]
    for group in groups(new, total):
        padded = len(group) * max(new[i] for i in group) * max(total[i] for i in group)
        real = sum(new[i] * total[i] for i in group)
        assert len(group) == 1 or padded <= 2 * real + FREE_SCORES


@given(st.lists(st.integers(20, 40), min_size=1, max_size=200))
def test_requests_of_similar_length_stay_one_group_in_the_order_of_the_batch(total):
    assert groups([1] * len(total), total) == [list(range(len(total)))]


def test_one_very_long_request_does_not_pad_all_others():
    total = [30] * 100 + [20_000]
    split = groups([1] * 101, total)
    assert [100] in split and len(split) == 2
