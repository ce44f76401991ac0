"""The sampler process, against a stand-in server, with this test in the trainer's place."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_ins import StandInServer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from engine.platform.waiting import wait_for
from engine.rollout.control import Control
from engine.rollout.evaluation import evaluate
from engine.rollout.lineage import Place, Start
from engine.rollout.made_by import FILES
from engine.rollout.stale import discard_after
from engine.rollout.store import RolloutStore
from launchers.ports import LoopbackPorts

pytestmark = [pytest.mark.slow, pytest.mark.serial]  # each starts a Python with its reward workers

WORDS = ["<pad>", "<eos>", "?", "<think>", "</think>", "<answer>", "</answer>", "7", "Q:", "hm"]
NUMBERED = [f"n{i}" for i in range(20)]  # a prompt ends with one of these: token len(WORDS) + i
PROGRAM = Path(__file__).with_name("sampler_process.py")


class Run:
    """A run folder with all that a sampler needs, and the trainer's side of it."""

    def __init__(self, folder: Path, server: StandInServer) -> None:
        self.folder = folder
        self.server = server
        self.rollouts = RolloutStore(folder / "run/rollouts")
        self.evaluations = RolloutStore(folder / "run/evaluations")
        self.log = folder / "sampler.log"
        self._write_model(folder / "model")
        self._write_prompts("train.jsonl", NUMBERED[:12])
        self._write_prompts("held_out.jsonl", NUMBERED[12:])
        self.plan: dict[str, Any] = {
            "run_dir": str(folder / "run"),
            "model": str(folder / "model"),
            "seed": 1,
            "steps": 3,
            "server_urls": {"server-0": server.url},
            "prompts": {
                "train": str(folder / "train.jsonl"),
                "held_out": str(folder / "held_out.jsonl"),
                "template": "plain",
            },
            "rollout": {
                "prompts_per_step": 4, "group_size": 2, "max_new_tokens": 20,
                "temperature": 1.0, "wait_seconds": 60,
            },
            "servers": {
                "count": 1, "start_seconds": 60, "request_seconds": 60, "max_total_tokens": 999,
            },
            "rewards": {
                "accuracy": {"weight": 1.0, "deadline_seconds": 60.0, "workers": 1},
                "format": {"weight": 1.0},
            },
            "evaluation": {"every": 2, "prompts": 3, "temperature": 0.6, "top_p": 0.95},
        }  # fmt: skip

    def start(self, first: int = 0, **layout: int) -> subprocess.Popen[bytes]:
        """Start the sampler, and take the trainer's place: this start goes on from ``first``."""
        address = f"127.0.0.1:{next(LoopbackPorts())}"
        self.control = Control.host(address)
        start = self.trainer_start(first)
        if layout:
            others = {f"layout.{name}": size for name, size in layout.items()}
            start = replace(start, trained_with={**start.trained_with, **others})
        self.control.announce_start(start)
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps({**self.plan, "control_address": address}))
        with self.log.open("wb") as log:
            return subprocess.Popen([sys.executable, PROGRAM, plan], stdout=log, stderr=log)

    def trainer_start(self, first: int = 0) -> Start:
        """What a trainer says that has a checkpoint behind the stored steps before ``first``."""
        place = Place.beginning("a model", "an order")
        for step in range(first):
            summary = self.rollouts.summary(step)
            assert summary is not None
            place = place.after(summary, {"optimizer.lr": 0.1})
        return Start(place, {"optimizer.lr": 0.1}, dict.fromkeys(FILES, "a digest"))

    def push(self, version: int) -> None:
        self.server.set_version(version)
        self.control.announce_weights_version(version)

    def wait(self, name: str, poll: Callable[[], object]) -> None:
        wait_for(name, lambda: poll() or None, 120, lambda: self.log.read_text())

    def train(self, first: int = 0) -> None:
        """What a trainer does, without learning."""
        self.wait("the servers", self.control.servers_ready)
        self.push(first)
        for step in range(first, self.plan["steps"]):
            self.wait(f"rollout {step}", lambda step=step: self.rollouts.is_done(step))
            self.push(step + 1)
        last = self.plan["steps"]
        self.wait(f"evaluation {last}", lambda: self.evaluations.is_done(last))

    def _write_model(self, folder: Path) -> None:
        folder.mkdir()
        config = {"vocab_size": len(WORDS) + len(NUMBERED), "eos_token_id": 1}
        (folder / "config.json").write_text(json.dumps(config))
        vocabulary = {word: token for token, word in enumerate([*WORDS, *NUMBERED])}
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        tokenizer.save(str(folder / "tokenizer.json"))

    def _write_prompts(self, name: str, numbered: list[str]) -> None:
        lines = [
            json.dumps({"id": f"id-{word}", "prompt": f"Q: {word}", "answer": "7"})
            for word in numbered
        ]
        (self.folder / name).write_text("\n".join(lines))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory) -> Iterator[StandInServer]:
    server = StandInServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def run(tmp_path, shared_server) -> Iterator[Run]:
    shared_server.set_behaviours({})
    shared_server.set_version(0)
    shared_server.asked()
    yield Run(tmp_path, shared_server)


def ended(process: subprocess.Popen[bytes], within: float) -> int:
    try:
        return process.wait(within)
    finally:
        process.kill()


def slow_prompt(run: Run, step: int, mood: str) -> int:
    """Have one prompt of rollout ``step`` met with ``mood``; returns its last token."""
    from engine.data.prompts import PromptSet

    prompts = PromptSet.load(run.folder / "train.jsonl", seed=1).take(4 * step, 4)
    token = len(WORDS) + NUMBERED.index(prompts[2].prompt.split()[-1])
    run.server.set_behaviours({token: mood})
    return token


def test_a_whole_run_has_every_rollout_and_every_evaluation_at_its_version(run):
    sampler = run.start()
    run.train()
    assert ended(sampler, within=60) == 0
    for store, step in (("rollouts", 0), ("rollouts", 2), ("evaluations", 3)):
        with run.control.notice_of_step(store, step) as notice:  # the trainer need not look for it
            begun = time.monotonic()
            notice.pause(20)
            assert time.monotonic() - begun < 10
    assert run.rollouts.steps() == [0, 1, 2]
    assert run.evaluations.steps() == [0, 2, 3]  # every 2 steps, and the last version
    asked = []
    for step in range(3):
        samples = run.rollouts.samples(step)
        assert {sample.weight_version for sample in samples} == {step}
        assert len(samples) == 8
        asked += [sample.prompt_id for sample in samples[::2]]
    assert sorted(asked) == sorted(f"id-{word}" for word in NUMBERED[:12])  # one whole epoch
    first = run.rollouts.samples(0)[0]
    assert first.text == "<think> hm hm </think> <answer> 7 </answer>"
    assert first.reward == 2.0
    assert first.prompt_tokens[0] == WORDS.index("Q:")
    for version in (0, 2, 3):
        samples = run.evaluations.samples(version)
        assert {sample.weight_version for sample in samples} == {version}
        assert {sample.prompt_id for sample in samples} <= {f"id-{w}" for w in NUMBERED[12:]}
        found = evaluate(samples)
        assert (found.version, found.problems) == (version, 3)
        assert {name: one.value for name, one in found.rewards.items()} == {
            "accuracy": 1.0, "format": 1.0,
        }  # fmt: skip
    lines = run.log.read_text().splitlines()
    pattern = (
        r"rollout 1: 4 groups, 8 samples, 68 tokens in \d+\.\d s \([\d,]+ tokens/s\), "
        r"mean reward 2\.000"
    )
    assert [line for line in lines if re.fullmatch(pattern, line)]
    assert [line for line in lines if line.startswith("evaluation of version 3: 3 groups")]


def test_a_second_start_samples_nothing_and_a_longer_run_goes_on(run):
    sampler = run.start()
    run.train()
    assert ended(sampler, within=60) == 0
    run.server.asked()
    again = run.start()
    run.wait("the servers", run.control.servers_ready)
    assert ended(again, within=60) == 0
    run.plan["steps"] = 4
    longer = run.start(first=2)
    run.train(first=2)  # as from an older checkpoint: rollout 2 is stored
    assert ended(longer, within=60) == 0
    assert run.rollouts.steps() == [0, 1, 2, 3]
    assert run.evaluations.steps() == [0, 2, 3, 4]
    assert len(run.server.asked()) == 4 + 3  # rollout 3 and evaluation 4


def test_what_was_sampled_in_another_layout_is_settled_when_the_trainer_comes_to_it(run):
    sampler = run.start()
    run.train()
    assert ended(sampler, within=60) == 0
    run.server.asked()
    close_enough = run.start(first=1, tp=2)
    run.wait("the servers", run.control.servers_ready)
    assert close_enough.poll() is None
    run.train(first=1)
    assert ended(close_enough, within=60) == 0
    assert run.server.asked() == []
    drifted = run.start(first=1, tp=2)
    run.wait("the servers", run.control.servers_ready)
    run.push(1)
    discard_after(run.rollouts, run.evaluations, 1)  # the trainer has compared rollout 1
    run.push(2)
    run.wait("rollout 2", lambda: run.rollouts.is_done(2))
    run.push(3)
    assert ended(drifted, within=60) == 0
    assert len(run.server.asked()) == 4 + 3 + 3  # rollout 2, evaluations 2 and 3
    made_by = run.rollouts.made_by(2)
    assert made_by is not None and made_by["trained_with.layout.tp"] == 2


def test_killed_in_a_rollout_its_successor_asks_only_for_what_is_missing(run):
    slow = slow_prompt(run, 1, "hang")
    sampler = run.start()
    run.wait("the servers", run.control.servers_ready)
    run.push(0)
    run.wait("rollout 0", lambda: run.rollouts.is_done(0))
    run.push(1)
    run.wait("three groups", lambda: len(run.rollouts.finished_groups(1)) == 3)
    sampler.kill()
    sampler.wait()
    run.server.set_behaviours({})
    run.server.asked()
    stored = set(run.rollouts.finished_groups(1))
    again = run.start(first=1)
    run.wait("the servers", run.control.servers_ready)
    run.push(1)
    run.wait("rollout 1", lambda: run.rollouts.is_done(1))
    assert run.server.asked() == [slow]
    assert stored == {0, 1, 3}
    assert told_to_end(again, signal.SIGINT) != 0


def test_groups_of_another_temperature_are_asked_again(run):
    slow_prompt(run, 0, "hang")
    sampler = run.start()
    run.wait("the servers", run.control.servers_ready)
    run.push(0)
    run.wait("three groups", lambda: len(run.rollouts.finished_groups(0)) == 3)
    sampler.kill()
    sampler.wait()
    run.server.set_behaviours({})
    run.server.asked()
    run.plan["rollout"]["temperature"] = 0.5
    again = run.start()
    run.wait("the servers", run.control.servers_ready)
    run.push(0)
    run.wait("rollout 0", lambda: run.rollouts.is_done(0))
    assert len(run.server.asked()) == 4
    made_by = run.rollouts.made_by(0)
    assert made_by is not None and made_by["rollout.temperature"] == 0.5
    assert (
        "rollout 0 was sampled with rollout.temperature 1.0, this run asks for 0.5: it is sampled "
        "again" in run.log.read_text()
    )
    told_to_end(again, signal.SIGTERM)


def test_its_heartbeat_names_missing_groups_and_sigterm_ends_it_at_once(run):
    slow_prompt(run, 0, "hang")
    sampler = run.start()
    run.wait("the servers", run.control.servers_ready)
    run.wait("a beat", lambda: "waiting for weight version 0" in said(run))
    run.push(0)
    words = "rollouts 0: 3 of 4 groups are stored; waiting for groups 2"
    run.wait("a beat", lambda: words in said(run))
    assert told_to_end(sampler, signal.SIGTERM) == 128 + signal.SIGTERM
    assert set(run.rollouts.finished_groups(0)) == {0, 1, 3}
    assert "never retrieved" not in run.log.read_text()


def said(run: Run) -> str:
    return run.control.last_said("sampler")


def told_to_end(sampler: subprocess.Popen[bytes], how: signal.Signals) -> int:
    sampler.send_signal(how)
    return ended(sampler, within=60)  # 0.3 s on a machine that is not busy


def test_a_trainer_that_does_not_push_is_named_with_its_last_words(run):
    run.plan["rollout"]["wait_seconds"] = 1.5
    sampler = run.start()
    run.control.say("exporting 61 layers")
    assert ended(sampler, within=60) == 1
    error = run.log.read_text().splitlines()[-1]
    assert re.fullmatch(
        r"error: waited 1.5 s for weight version 0; "
        r'the trainer said \d+ s ago: "exporting 61 layers"',
        error,
    )


def test_a_server_that_was_not_updated_is_found_out(run):
    sampler = run.start()
    run.wait("the servers", run.control.servers_ready)
    run.server.set_version(5)
    run.control.announce_weights_version(0)
    assert ended(sampler, within=60) == 1
    error = run.log.read_text().splitlines()[-1]
    assert "expected an answer by weight version 0, a server answered with version 5" in error
    assert "prompt id-n" in error


def test_a_server_that_never_gets_healthy_is_named(run):
    run.plan["servers"]["start_seconds"] = 1.0
    run.plan["server_urls"]["server-1"] = f"http://127.0.0.1:{next(LoopbackPorts())}"
    sampler = run.start()
    assert ended(sampler, within=60) == 1
    assert "error: not every server was ready within 1 s: " in run.log.read_text()
    assert "server-1" in run.log.read_text()


def test_a_full_disk_ends_it_with_one_sentence(run, tmp_path):
    disk = tmp_path / "run"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if (mounted := subprocess.run(command, capture_output=True, text=True)).returncode:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    try:
        sampler = run.start()
        run.wait("the servers", run.control.servers_ready)
        run.push(0)
        assert ended(sampler, within=60) == 1
        error = run.log.read_text().splitlines()[-1]
        assert re.match(r"error: .*the disk is full: \S+ in \S+/run/\S+ needs [\d,]+ bytes", error)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


TRAINER_THAT_DIES = """
import json, sys, time
from engine.rollout.control import Control
from engine.rollout.lineage import Start
host = Control.host(sys.argv[1])
host.announce_start(Start.from_json(json.loads(sys.argv[2])))
while not host.servers_ready():
    time.sleep(0.05)
"""


def test_a_trainer_that_dies_ends_it_within_seconds_whatever_it_waits_for(run):
    slow_prompt(run, 0, "hang")
    address = f"127.0.0.1:{next(LoopbackPorts())}"
    start = json.dumps(run.trainer_start().as_json())
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER_THAT_DIES, address, start])
    plan = run.folder / "plan.json"
    plan.write_text(json.dumps({**run.plan, "control_address": address}))
    with run.log.open("wb") as log:
        sampler = subprocess.Popen([sys.executable, PROGRAM, plan], stdout=log, stderr=log)
    trainer.wait(60)
    assert ended(sampler, within=60) == 1  # a beat is 2 s, and what it waits for never comes
    assert "error: trainer rank 0 has gone" in run.log.read_text()
