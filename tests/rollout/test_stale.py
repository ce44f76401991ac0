"""What a start may use of stored steps: the same settings, weights of the same past, no more."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_samples import make_group

from engine.config.sampler import EvaluationConfig, RolloutConfig
from engine.rewards.table import RewardsConfig
from engine.rollout.lineage import Lineage, Place, Start
from engine.rollout.made_by import differences
from engine.rollout.stale import discard_after, discard_stale
from engine.rollout.store import RolloutStore

STEPS = 4
UPDATE = {"optimizer.lr": 3e-4, "layout.tp": 1, "kernels.linear": "torch"}
DIGESTS = {"model": "m0", "prompts.train": "t0", "prompts.held_out": "h0"}
PLACE = Place.beginning("m0", "t0 seed 5")


def sections(changes: Mapping[str, Any]) -> SimpleNamespace:
    """The sections of sampling, with ``changes`` by dotted key."""
    trees: dict[str, Any] = {
        "rollout": {
            "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 50, "temperature": 0.9,
        },
        "rewards": {"accuracy": {"weight": 1.0}, "format": {"weight": 0.5}},
        "evaluation": {"every": 2, "prompts": 2, "temperature": 0.6},
        "prompts": {"template": "plain"},
    }  # fmt: skip
    for key, value in changes.items():
        *path, name = key.split(".")
        tree = trees
        for part in path:
            tree = tree[part]
        tree[name] = value
    return SimpleNamespace(
        seed=5,
        rollout=RolloutConfig(**trees["rollout"]),
        rewards=RewardsConfig.model_validate(trees["rewards"]),
        evaluation=EvaluationConfig(**trees["evaluation"]),
        prompts=SimpleNamespace(**trees["prompts"]),
    )


def lineage(
    changes: Mapping[str, Any] | None = None,
    *,
    place: Place = PLACE,
    update: Mapping[str, Any] = UPDATE,
    digests: Mapping[str, str] = DIGESTS,
    stops: tuple[int, ...] = (1,),
) -> Lineage:
    return Lineage(Start(place, update, digests), sections(changes or {}), stops)


class Run:
    """Two stores of a run that has sampled every step under the settings above."""

    def __init__(self, folder: Path) -> None:
        self.rollouts = RolloutStore(folder / "rollouts")
        self.evaluations = RolloutStore(folder / "evaluations")
        self.places = {0: PLACE}
        self.said: list[str] = []
        at = lineage()
        for step in range(STEPS):
            self._store(self.evaluations, step, at.evaluation())
            self._store(self.rollouts, step, at.rollout())
            summary = self.rollouts.summary(step)
            assert summary is not None
            at.advance(summary)
            self.places[step + 1] = at.place
        self._store(self.evaluations, STEPS, at.evaluation())

    def start(self, wanted: Lineage, steps: int = STEPS) -> frozenset[int]:
        self.said.clear()
        return discard_stale(self.rollouts, self.evaluations, wanted, steps, self.said.append)

    @staticmethod
    def _store(store: RolloutStore, step: int, made_by: Mapping[str, Any]) -> None:
        store.begin(step, made_by)
        for group in range(2):
            store.write_group(step, make_group(group, version=step, seed=step))
        store.finish(step, 2, seconds=1.0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_with_equal_settings_everything_is_replayed(run):
    wanted = lineage()
    assert run.start(wanted) == {0, 1, 2, 3}
    assert wanted.place == PLACE and run.said == []
    assert run.start(lineage(place=run.places[2])) == {2, 3}
    assert run.evaluations.steps() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rollout.temperature", 0.7, "rollout.temperature 0.9, this run asks for 0.7"),
        ("rollout.group_size", 8, "rollout.group_size 4, this run asks for 8"),
        ("rollout.max_new_tokens", 60, "rollout.max_new_tokens 50, this run asks for 60"),
        ("rollout.prompts_per_step", 3, "rollout.prompts_per_step 2, this run asks for 3"),
        ("rewards.format.weight", 0.0, "rewards.format.weight 0.5, this run asks for 0.0"),
        ("rewards", {"accuracy": {"weight": 1.0}}, "rewards.format.weight 0.5, this run asks"),
        ("prompts.template", "r1_zero", "prompts.template plain, this run asks for r1_zero"),
    ],
)
def test_another_setting_samples_again_and_is_named(run, key, value, words):
    assert run.start(lineage({key: value}, place=run.places[2])) == frozenset()
    assert any(said.startswith("rollout 2 was sampled with") and words in said for said in run.said)
    assert "rollout 3 came after it: sampled again, too" in run.said
    assert run.rollouts.steps() == [0, 1]  # behind the checkpoint nothing is touched


@pytest.mark.parametrize("key", ["model", "prompts.train"])
def test_another_file_samples_again(run, key):
    assert run.start(lineage(digests={**DIGESTS, key: "other"})) == frozenset()
    assert f"rollout 0 was sampled with another {key}: it is sampled again" in run.said


def test_another_end_of_answers_samples_again(run):
    assert run.start(lineage(stops=(1, 7))) == frozenset()
    assert "stop_token_ids [1], this run asks for [1, 7]" in run.said[0]


def test_what_only_evaluations_are_made_by_leaves_rollouts_alone(run):
    changed = lineage({"evaluation.top_p": 0.5}, place=run.places[1])
    assert run.start(changed) == {1, 2, 3}
    assert run.evaluations.steps() == [0]
    assert run.said[0] == (
        "evaluation of version 1 was sampled with evaluation.top_p 0.95, this run asks for 0.5: "
        "it is sampled again"
    )
    assert run.start(lineage({"evaluation.every": 3, "rollout.wait_seconds": 9})) == {0, 1, 2, 3}


def test_another_way_to_train_keeps_the_checkpoints_own_step_alone(run):
    wanted = lineage(place=run.places[1], update={**UPDATE, "optimizer.lr": 1e-4})
    assert run.start(wanted) == {1}
    assert "rollout 2 was sampled by weights trained with optimizer.lr 0.0003" in run.said[1]
    assert run.evaluations.steps() == [0, 1]


def test_another_layout_replays_what_its_weights_may_drift_from(run):
    """At the checkpoint they are the same; behind it rounding adds up from update to update."""
    wanted = lineage(place=run.places[1], update={**UPDATE, "layout.tp": 2})
    assert run.start(wanted) == {1, 2, 3}
    assert [step for step in range(STEPS) if wanted.drift(run.rollouts, step)] == [2, 3]
    assert str(wanted.drift(run.evaluations, STEPS)) == (
        "was sampled by weights trained with layout.tp 1, this run has 2"
    )
    at_tp2 = Place(**{**run.places[2].as_json(), "trained_with": {**UPDATE, "layout.tp": 2}})
    back = lineage(place=at_tp2)
    assert run.start(back) == {2, 3}
    assert not any(back.drift(run.rollouts, step) for step in range(STEPS))


def test_what_came_after_a_step_is_discarded_and_told(run):
    assert discard_after(run.rollouts, run.evaluations, 2) == [
        "rollout 3", "evaluation of version 3 to 4",
    ]  # fmt: skip
    assert run.rollouts.steps() == run.evaluations.steps() == [0, 1, 2]
    assert discard_after(run.rollouts, run.evaluations, 2) == []


def test_a_checkpoint_trained_another_way_than_the_sampled_weights_samples_again(run):
    place = Place(**{**run.places[2].as_json(), "trained_with": {**UPDATE, "optimizer.lr": 1.0}})
    assert run.start(lineage(place=place)) == frozenset()
    assert "trained with optimizer.lr 0.0003, this run has 1.0" in run.said[1]


def test_a_rollout_that_is_missing_takes_along_what_was_sampled_after_it(run):
    run.rollouts.discard(1)
    assert run.start(lineage()) == {0}
    assert run.rollouts.steps() == [0]
    assert run.evaluations.steps() == [0, 1]
    assert run.said == [
        "rollout 2 to 3 came after it: sampled again, too",
        "evaluation of version 2 to 4 came after it: sampled again, too",
    ]


def test_weights_of_another_past_are_found_even_with_equal_settings(run, tmp_path):
    """A checkpoint that has learned other samples, of the same settings."""
    other = lineage()
    summary = run.rollouts.summary(1)
    assert summary is not None
    for _ in range(2):  # rollout 1 twice, instead of 0 and 1
        other.advance(summary)
    assert run.start(lineage(place=other.place)) == frozenset()
    assert "rollout 2 was sampled by other weights than this start has" in run.said[1]


@pytest.mark.parametrize("damage", [b"\0", b"PAR1"])
def test_samples_that_are_not_those_of_their_digest_are_sampled_again(run, damage):
    """A file of the right size: what a disk or a copy has made of it."""
    for store in (run.rollouts, run.evaluations):
        file = store.folder(2) / "samples.parquet"
        file.write_bytes((damage * file.stat().st_size)[: file.stat().st_size])
    assert run.start(lineage(place=run.places[1])) == {1}
    assert run.said[:2] == [
        "evaluation of version 2 is damaged (its digest is another one): it is sampled again",
        "rollout 2 is damaged (its digest is another one): it is sampled again",
    ]
    assert run.rollouts.steps() == [0, 1]
    assert run.evaluations.steps() == [0, 1]


@pytest.mark.parametrize("what", ["made_by.json", "done.json"])
@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"\xff", b"[" * 90_000, None])
def test_a_description_that_is_none_is_no_traceback(run, what, content):
    file = run.rollouts.folder(1) / what
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert run.start(lineage()) == {0}


def test_a_step_under_another_number_is_not_that_step(run):
    run.rollouts.discard(3)
    run.rollouts.folder(1).rename(run.rollouts.folder(3))
    assert run.rollouts.steps() == [0, 2]
    assert run.start(lineage(place=run.places[2])) == {2}


def test_counts_that_are_no_numbers_are_no_summary(run):
    file = run.rollouts.folder(1) / "done.json"
    file.write_text(file.read_text().replace('"groups": 2', '"groups": "2"'))
    assert run.rollouts.summary(1) is None


def test_another_module_of_a_reward_of_ones_own_samples_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stale_own").mkdir()
    module = tmp_path / "stale_own" / "length.py"
    module.write_text(
        "from engine.rewards.reward import Reward\nfrom engine.rewards.score import graded\n"
        "class Length(Reward):\n"
        "    async def score(self, answer):\n        return graded(len(answer.response))\n"
        "REWARD = Length\n"
    )
    rewards = {"rewards": {"stale_own.length": {"weight": 1.0}, "format": {"weight": 1.0}}}
    before = lineage(rewards).rollout()
    assert [key for key in before if key.endswith("(code)")] == ["rewards.stale_own.length (code)"]
    assert lineage(rewards).rollout() == before
    module.write_text(module.read_text().replace("len(answer", "-len(answer"))
    (found,) = differences(before, lineage(rewards).rollout())
    assert str(found) == "was sampled with another rewards.stale_own.length (code)"


def test_a_step_that_does_not_say_what_made_it_is_sampled_again(run):
    (run.rollouts.folder(1) / "made_by.json").unlink()
    assert run.start(lineage()) == {0}
    assert run.said[0] == "rollout 1 does not say what made it: it is sampled again"


def test_finished_groups_stay_if_their_settings_are_equal(run):
    run.rollouts.discard(3)
    at = lineage(place=run.places[3])
    run.rollouts.begin(3, at.rollout())
    run.rollouts.write_group(3, make_group(0, version=3))
    assert run.start(copy(at)) == frozenset()
    assert set(run.rollouts.finished_groups(3)) == {0}
    changed = lineage({"rollout.temperature": 0.1}, place=run.places[3])
    run.start(changed)
    assert not run.rollouts.has(3)


def test_steps_beyond_the_last_one_are_another_starts_business(run):
    assert run.start(lineage(update={**UPDATE, "layout.tp": 2}), steps=1) == {0}
    assert run.rollouts.steps() == [0, 1, 2, 3]


def test_the_place_goes_on_by_what_was_taken_and_survives_json(run):
    assert [run.places[step].prompts for step in range(5)] == [0, 2, 4, 6, 8]
    assert Place.from_json(run.places[3].as_json()) == run.places[3]
    start = Start(run.places[3], UPDATE, DIGESTS)
    assert Start.from_json(start.as_json()) == start
