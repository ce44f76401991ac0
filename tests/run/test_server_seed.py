"""Servers draw other random numbers in each start, the same for the same state of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.rewards.score import RIGHT
from engine.rollout.sample import Sample
from engine.rollout.store import RolloutStore
from engine.run.server_seed import server_seed

SAMPLE = Sample(
    prompt_id="p", group=0, index=0, prompt_tokens=[3], tokens=[4, 1], logprobs=[-1.0, -0.5],
    weight_version=0, finish_reason="stop", text="x", answer="x", reward=1.0,
    scores={"accuracy": RIGHT}, requested_at=1.0, finished_at=2.0, scored_at=3.0,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> RolloutStore:
    return RolloutStore(tmp_path / "rollouts")


def test_every_server_and_every_seed_draws_its_own(tmp_path):
    seeds = [server_seed(tmp_path, seed, server) for seed in range(8) for server in range(8)]
    assert len(set(seeds)) == 64
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[0] == server_seed(tmp_path, 0, 0)


def test_each_group_that_is_there_changes_what_the_next_start_draws(tmp_path, store):
    drawn = [server_seed(tmp_path, 1, 0)]
    for group in range(2):
        store.write_group(0, [replace(SAMPLE, group=group)])
        drawn.append(server_seed(tmp_path, 1, 0))
    store.finish(0, 2, seconds=1.0)
    drawn.append(server_seed(tmp_path, 1, 0))
    RolloutStore(tmp_path / "evaluations").write_group(1, [SAMPLE])
    drawn.append(server_seed(tmp_path, 1, 0))
    assert len(set(drawn)) == 5


def test_a_step_that_was_sampled_again_changes_it_too(tmp_path, store):
    drawn = []
    for text in ("one", "other"):
        store.write_group(0, [replace(SAMPLE, text=text)])
        store.finish(0, 1, seconds=1.0)
        drawn.append(server_seed(tmp_path, 1, 0))
        store.discard(0)
    assert len(set(drawn)) == 2


def test_behind_a_checkpoint_nothing_has_to_be_stored(tmp_path, store):
    before = server_seed(tmp_path, 1, 0)
    (tmp_path / "checkpoints" / "000007").mkdir(parents=True)
    assert server_seed(tmp_path, 1, 0) != before
