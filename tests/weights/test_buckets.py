"""The plan of a stream: every tensor once, bounded buckets, even shares."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.weights.buckets import plan_buckets
from engine.weights.tensor_maps import natural_order

SIZES = st.lists(st.integers(0, 40), max_size=60)


@given(sizes=SIZES, limit=st.integers(1, 60), ranks=st.integers(1, 9))
def test_every_tensor_is_in_one_bucket_in_order(sizes, limit, ranks):
    named = {(f"tensor {n}", None): size for n, size in enumerate(sizes)}
    plan = plan_buckets(named, limit, ranks)
    assert [key for bucket in plan for key in bucket.keys] == list(named)
    assert [bucket.number for bucket in plan] == list(range(len(plan)))
    assert all(bucket.keys for bucket in plan)
    assert [bucket.bytes for bucket in plan] == [sum(named[k] for k in b.keys) for b in plan]


@given(sizes=SIZES, limit=st.integers(1, 60), ranks=st.integers(1, 9))
def test_no_bucket_is_above_the_limit_unless_it_is_a_single_tensor(sizes, limit, ranks):
    plan = plan_buckets({(str(n), n): size for n, size in enumerate(sizes)}, limit, ranks)
    assert all(bucket.bytes <= limit or len(bucket.keys) == 1 for bucket in plan)
    # Nor are there more than are needed: two neighbours would not fit into one.
    for first, second in pairwise(plan):
        assert first.bytes + second.bytes > limit


@given(sizes=SIZES, limit=st.integers(1, 60), ranks=st.integers(1, 9))
def test_ranks_receive_equally_many_and_never_two_at_a_time(sizes, limit, ranks):
    plan = plan_buckets({(str(n), n): size for n, size in enumerate(sizes)}, limit, ranks)
    received = Counter(dict.fromkeys(range(ranks), 0))
    received.update(bucket.rank for bucket in plan)
    assert set(received) == set(range(ranks))
    assert max(received.values()) - min(received.values()) <= 1
    for first in range(0, len(plan), ranks):
        together = [bucket.rank for bucket in plan[first : first + ranks]]
        assert len(set(together)) == len(together)


def test_fewer_buckets_than_ranks_go_to_ranks_far_apart():
    plan = plan_buckets({(str(n), n): 1 for n in range(3)}, 1, ranks=16)
    assert [bucket.rank for bucket in plan] == [0, 5, 10]


def test_layer_10_comes_behind_layer_9():
    names = ["model.layers.10.a", "model.layers.9.b", "lm_head", "model.layers.9.a"]
    assert sorted(names, key=natural_order) == [names[2], names[3], names[1], names[0]]
