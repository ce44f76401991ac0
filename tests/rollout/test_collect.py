"""Collection asks what is missing, scores what is there, and names what cannot be completed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from stand_ins import StandInServer

from engine.errors import RunError
from engine.rewards.reward import Answer
from engine.rewards.reward_function import RewardResult
from engine.rewards.score import RIGHT, WRONG
from engine.rollout.collect import Collector, GroupRequest
from engine.rollout.store import RolloutStore, StepSummary
from engine.servers.client import Sampling, connect

SAMPLING = Sampling(n=3, max_new_tokens=20, temperature=1.0, stop_token_ids=(1,))
REQUESTS = [
    GroupRequest(f"p{last}", f"Q: {last}", [8, last], answer=str(last)) for last in (10, 11, 12, 13)
]


class LengthReward:
    """Finds samples with an even number of tokens right; stumbles over what it is told to."""

    def __init__(self, stumble_over: str | None = None) -> None:
        self.stumble_over = stumble_over

    async def score(self, answer: Answer) -> RewardResult:
        await asyncio.sleep(0)
        assert answer.prompt == f"Q: {answer.reference}"
        if answer.reference == self.stumble_over:
            raise RunError("a reward worker cannot be started")
        right = len(answer.response.split()) % 2 == 0
        return RewardResult({"length": RIGHT if right else WRONG}, 2.0 * right)


def decode(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory) -> Iterator[StandInServer]:
    server = StandInServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: StandInServer) -> StandInServer:
    """The stand-in server, alive, well-behaved and with an empty log."""
    shared_server.set_behaviours({})
    if shared_server.process.poll() is not None:
        shared_server.start()
    shared_server.asked()
    return shared_server


def collect(
    store: RolloutStore,
    server: StandInServer,
    requests: Sequence[GroupRequest] = REQUESTS,
    sampling: Sampling = SAMPLING,
    *,
    step: int = 0,
    version: int = 0,
    rewards: LengthReward | None = None,
    request_seconds: float = 20,
    said: list[str] | None = None,
) -> StepSummary:
    async def body() -> StepSummary:
        async with connect({"server-0": server.url}, request_seconds) as client:
            say = (said if said is not None else []).append
            collector = Collector(client, rewards or LengthReward(), decode, say)
            return await collector.collect(store, step, requests, sampling, version)

    return asyncio.run(body())


def test_every_request_becomes_a_stored_and_scored_group(server, tmp_path):
    store = RolloutStore(tmp_path / "rollouts")
    before = time.time()
    summary = collect(store, server, step=5)
    samples = store.samples(5)
    assert (summary.groups, summary.samples, summary.weight_versions) == (4, 12, [0])
    assert summary.tokens == 4 * (8 + 9 + 10)
    assert [(s.prompt_id, s.group, s.index) for s in samples] == [
        (request.prompt_id, group, index)
        for group, request in enumerate(REQUESTS)
        for index in range(3)
    ]
    sample = samples[4]
    assert sample.prompt_tokens == [8, 11]
    assert sample.answer == "11"
    assert sample.tokens == [3, 9, 9, 9, 4, 5, 7, 6, 1]
    assert sample.logprobs == [-0.25 * token for token in sample.tokens]
    assert sample.text == decode(sample.tokens)
    assert sample.scores == {"length": WRONG}
    assert [s.reward for s in samples[:3]] == [2.0, 0.0, 2.0]
    assert before <= sample.requested_at <= sample.finished_at <= sample.scored_at <= time.time()


def test_a_group_is_scored_while_others_are_still_being_generated(server, tmp_path):
    store = RolloutStore(tmp_path / "rollouts")
    server.set_behaviours({13: "slow 1.0"})
    said: list[str] = []
    collect(store, server, said=said)
    samples = store.samples(0)
    assert max(s.scored_at for s in samples[:9]) < samples[9].finished_at
    assert said[0] == "rollouts 0: 0 of 4 groups are stored; waiting for groups 0, 1, 2, 3"
    assert said[-2] == "rollouts 0: 3 of 4 groups are stored; waiting for groups 3"
    assert said[-1] == "rollouts 0: 4 of 4 groups are stored"


def test_many_missing_groups_are_counted_not_listed(server, tmp_path):
    said: list[str] = []
    requests = [GroupRequest(f"p{i}", f"Q: {i}", [i], str(i)) for i in range(20)]
    collect(RolloutStore(tmp_path / "evaluations"), server, requests, said=said)
    assert said[0].endswith("waiting for groups 0, 1, 2, 3, 4, 5, 6, 7 and 12 more")


@pytest.mark.slow
def test_only_missing_groups_are_asked_for(server, tmp_path):
    store = RolloutStore(tmp_path / "rollouts")
    server.set_behaviours({11: "hang", 13: "hang"})
    with pytest.raises(RunError, match="hangs"):
        collect(store, server, request_seconds=3)
    failed_at = time.time()
    assert set(store.finished_groups(0)) == {0, 2}
    assert server.asked() == [10, 11, 12, 13]
    server.set_behaviours({})
    collect(store, server)
    assert server.asked() == [11, 13]
    firsts = store.samples(0)[::3]
    assert [s.prompt_id for s in firsts] == ["p10", "p11", "p12", "p13"]
    assert [s.requested_at < failed_at for s in firsts] == [True, False, True, False]


def stored_in_part(store: RolloutStore, server: StandInServer) -> None:
    """Leave step 0 as a killed sampler would: groups 0, 1 and 2 are stored, 3 is not."""
    collect(store, server, step=1000)
    for group in range(3):
        store.write_group(0, store.samples(1000, rows=range(3 * group, 3 * group + 3)))
    store.discard(1000)
    server.asked()


def test_a_group_with_a_damaged_file_is_asked_again(server, tmp_path):
    store = RolloutStore(tmp_path / "rollouts")
    stored_in_part(store, server)
    path = tmp_path / "rollouts/000000/groups/000001.parquet"
    path.write_bytes(path.read_bytes()[:100])
    collect(store, server)
    assert server.asked() == [11, 13]
    assert len(store.samples(0)) == 12


def test_a_step_that_is_done_is_not_touched(server, tmp_path):
    store = RolloutStore(tmp_path / "rollouts")
    first = collect(store, server)
    server.asked()
    assert collect(store, server, version=7) == first
    assert server.asked() == []


def test_a_server_that_dies_is_named_with_the_prompt_and_nothing_finished_is_lost(server, tmp_path):
    store = RolloutStore(tmp_path / "rollouts")
    collect(store, server, REQUESTS[:2], step=9)  # another step, to be left alone
    server.set_behaviours({13: "die", 12: "hang"})
    with pytest.raises(RunError) as raised:
        collect(store, server)
    assert "could not be completed: server-0 (http://127.0.0.1:" in str(raised.value)
    assert "died" in str(raised.value)
    assert "(prompt p1" in str(raised.value)
    finished = set(store.finished_groups(0))
    server.set_behaviours({})
    server.process.wait(60)
    server.start()
    server.asked()
    collect(store, server)
    assert server.asked() == [10 + group for group in range(4) if group not in finished]
    assert store.steps() == [0, 9]


def test_a_server_that_hangs_is_named_within_the_limit(server, tmp_path):
    server.set_behaviours({11: "hang"})
    start = time.monotonic()
    with pytest.raises(
        RunError,
        match=r"rollouts 4: group 1 \(prompt p11\) could not be completed: server-0 .* hangs",
    ):
        collect(RolloutStore(tmp_path / "rollouts"), server, step=4, request_seconds=1)
    assert time.monotonic() - start >= 1


def test_an_aborted_sample_stops_the_run(server, tmp_path):
    server.set_behaviours({12: "abort"})
    with pytest.raises(RunError, match=r"group 2 \(prompt p12\) .*finish reason abort"):
        collect(RolloutStore(tmp_path / "rollouts"), server)


def test_samples_of_other_weights_stop_the_run(server, tmp_path):
    with pytest.raises(RunError, match=r"expected an answer by weight version 3, .* version 0"):
        collect(RolloutStore(tmp_path / "rollouts"), server, version=3)


def test_a_reward_that_fails_stops_the_run_with_the_prompt_named(server, tmp_path):
    with pytest.raises(RunError, match=r"\(prompt p12\) .*: a reward worker cannot be started"):
        collect(RolloutStore(tmp_path / "rollouts"), server, rewards=LengthReward("12"))


@pytest.mark.parametrize(
    ("change", "found", "wanted"),
    [
        ("prompt", "prompt p10, 3 samples, weight version 0", "prompt q10, 3 samples"),
        ("size", "prompt p10, 3 samples, weight version 0", "prompt p10, 2 samples"),
        ("version", "weight version 0, but", "weight version 1;"),
        ("count", "group 2 was stored with prompt p12", "this run asks for no such group"),
    ],
)
def test_stored_groups_of_other_requests_are_refused(server, tmp_path, change, found, wanted):
    store = RolloutStore(tmp_path / "rollouts")
    stored_in_part(store, server)
    requests, sampling, version = list(REQUESTS), SAMPLING, 0
    if change == "prompt":
        requests[0] = GroupRequest("q10", "Q: 10", [8, 10], "10")
    elif change == "size":
        sampling = Sampling(n=2, max_new_tokens=20, temperature=1.0, stop_token_ids=(1,))
    elif change == "version":
        version = 1
    else:
        requests = requests[:2]
    with pytest.raises(RunError) as raised:
        collect(store, server, requests, sampling, version=version)
    assert found in str(raised.value)
    assert wanted in str(raised.value)
    assert str(store.folder(0)) in str(raised.value)
    assert server.asked() == []
    assert set(store.finished_groups(0)) == {0, 1, 2}


def test_cancelling_keeps_what_is_finished(server, tmp_path: Path):
    store = RolloutStore(tmp_path / "rollouts")
    server.set_behaviours({10: "hang"})

    async def body() -> None:
        async with connect({"server-0": server.url}, 60) as client:
            collector = Collector(client, LengthReward(), decode, print)
            task = asyncio.create_task(collector.collect(store, 0, REQUESTS, SAMPLING, 0))
            while len(store.finished_groups(0)) < 3:
                await asyncio.sleep(0.02)
            task.cancel()
            await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(body())
    assert set(store.finished_groups(0)) == {1, 2, 3}
