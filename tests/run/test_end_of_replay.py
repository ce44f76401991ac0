"""A replay in another layout ends before the gate between trainer and sampler would end the run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.rollout.made_by import TRAINED_WITH, Difference
from engine.rollout.store import RolloutStore
from engine.run.sampling import DRIFT_SHARE, Sampling

LIMIT = 1e-3
DRIFT = Difference(f"{TRAINED_WITH}layout.pp", 1, 2)


@pytest.fixture
def sampling(tmp_path: Path) -> Sampling:
    """The trainer's side of a run that has stored steps 0 to 3, on rank 0."""
    found = Sampling.__new__(Sampling)
    found._rollouts = RolloutStore(tmp_path / "rollouts")
    found._evaluations = RolloutStore(tmp_path / "evaluations")
    found._record = object()  # type: ignore[assignment]
    found._replayed = frozenset(range(4))
    for step in range(4):
        found._rollouts.begin(step, {})
    found._evaluations.begin(3, {})
    return found


@pytest.mark.parametrize("worst", [0.0, DRIFT_SHARE * LIMIT, math.nan, math.inf])
def test_nothing_is_discarded_while_the_difference_is_small_or_no_number(sampling, worst):
    sampling._end_replay(1, DRIFT, worst, LIMIT)
    assert sampling._rollouts.stored() == [0, 1, 2, 3]
    assert sampling._evaluations.stored() == [3]
    assert sampling._replayed == {0, 1, 2, 3}


def test_what_is_stored_behind_goes_before_the_difference_is_too_large(sampling, capsys):
    sampling._end_replay(1, DRIFT, 0.9 * LIMIT, LIMIT)
    assert sampling._rollouts.stored() == [0, 1] and sampling._evaluations.stored() == []
    assert sampling._replayed == {0, 1}
    said = capsys.readouterr().out
    assert "rollout 2 to 3 was sampled by weights trained with layout.pp 1, this run has 2" in said


def test_a_difference_that_is_too_large_at_once_discards_the_rollout_itself(sampling):
    with pytest.raises(RunError, match=r"^rollout 1 was sampled .*start the run again"):
        sampling._end_replay(1, DRIFT, 1.1 * LIMIT, LIMIT)
    assert sampling._rollouts.stored() == [0]


def test_other_ranks_leave_the_folders_to_rank_0(sampling):
    sampling._record = None
    sampling._end_replay(1, DRIFT, 0.9 * LIMIT, LIMIT)
    assert sampling._rollouts.stored() == [0, 1, 2, 3]
