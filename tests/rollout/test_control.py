"""Control words arrive; a host that is late, dead or frozen gives one sentence within a limit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from engine.errors import RunError
from engine.rollout import control
from engine.rollout.control import Control
from engine.rollout.lineage import Place, Start
from launchers.ports import LoopbackPorts

HOST_PROGRAM = """
import sys, time
from engine.rollout.control import Control
time.sleep(float(sys.argv[2]))
host = Control.host(sys.argv[1])
host.announce_weights_version(7)
host.say("training step 7")
print("open", flush=True)
time.sleep(600)
"""


def free_address() -> str:
    return f"127.0.0.1:{next(LoopbackPorts())}"


@pytest.fixture
def host_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    address = free_address()
    process = subprocess.Popen(
        [sys.executable, "-c", HOST_PROGRAM, address, "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process, address
    process.kill()
    process.wait()


def freeze(pid: int) -> None:
    """Stop a process; return when all its threads stand still, which is later than the signal."""
    os.kill(pid, signal.SIGSTOP)
    threads = [psutil.Process(thread.id) for thread in psutil.Process(pid).threads()]
    deadline = time.monotonic() + 60
    while any(thread.status() != psutil.STATUS_STOPPED for thread in threads):
        assert time.monotonic() < deadline, "a thread goes on"
        time.sleep(0.01)


def test_words_go_both_ways_and_are_none_before_they_are_said():
    address = free_address()
    trainer = Control.host(address)
    sampler = Control.connect(address, "sampler", 60)
    assert trainer.servers_ready() is None
    assert sampler.weights_version() is None
    sampler.announce_servers_ready()
    trainer.announce_weights_version(0)
    assert trainer.servers_ready() is True
    assert sampler.weights_version() == 0
    trainer.announce_weights_version(12)
    assert sampler.weights_version() == 12
    assert sampler.start() is None
    place = Place(12, 83, "a set", "a past", {"optimizer.betas": [0.9, 0.95]})
    start = Start(place, {"optimizer.lr": 3e-4}, {"model": "a digest"})
    trainer.announce_start(start)
    assert sampler.start() == start


def test_a_heartbeat_carries_text_and_age(monkeypatch):
    said_at = time.time()
    monkeypatch.setattr(control.time, "time", lambda: said_at)
    address = free_address()
    trainer = Control.host(address)
    sampler = Control.connect(address, "sampler", 60)
    assert trainer.last_said("sampler") == "the sampler has not said anything yet"
    sampler.say('rollout 3: waiting for groups 4, 9 ("Gruß")')
    assert trainer.last_said("sampler") == (
        'the sampler said 0 s ago: "rollout 3: waiting for groups 4, 9 ("Gruß")"'
    )
    monkeypatch.setattr(control.time, "time", lambda: said_at + 42)
    assert "said 42 s ago" in trainer.last_said("sampler")


def test_connecting_waits_for_a_late_host():
    address = free_address()
    late: list[Control] = []
    timer = threading.Timer(0.5, lambda: late.append(Control.host(address)))
    timer.start()
    assert Control.connect(address, "sampler", 60).weights_version() is None
    timer.join()


def test_connecting_to_nobody_ends_at_its_limit():
    with pytest.raises(RunError, match=r"waited 0\.3 s for the control store at 127\..*rank 0"):
        Control.connect(free_address(), "sampler", 0.3)


def test_the_host_listens_on_its_own_address_only():
    address = free_address()
    host = Control.host(address)
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match="refused"):  # another address of the loopback interface
        socket.create_connection(("127.0.0.2", port), timeout=1)
    assert host.weights_version() is None


def test_an_address_in_use_is_refused_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RunError, match=f"cannot open the control store at {address}") as raised:
            Control.host(address)
    assert "\n" not in str(raised.value)


def test_a_dead_host_is_named_at_once(host_process, monkeypatch):
    process, address = host_process
    monkeypatch.setattr(control, "ACCESS_SECONDS", 600)  # else pytest's limit ends the test
    sampler = Control.connect(address, "sampler", 60)
    assert sampler.weights_version() == 7
    assert sampler.last_said("trainer").endswith('"training step 7"')
    process.kill()
    process.wait()
    with pytest.raises(RunError, match="trainer rank 0 has gone") as raised:
        sampler.weights_version()
    with pytest.raises(RunError, match="trainer rank 0 has gone"):
        for _ in range(3):  # a first write may still land in the socket's buffer
            sampler.say("anything")
    assert "\n" not in str(raised.value)


def test_a_frozen_host_blocks_nobody_beyond_the_limit(host_process, monkeypatch):
    process, address = host_process
    sampler = Control.connect(address, "sampler", 60)
    monkeypatch.setattr(control, "ACCESS_SECONDS", 0.5)
    freeze(process.pid)
    start = time.monotonic()
    with pytest.raises(RunError, match=r"trainer rank 0 is frozen.* 0\.5 s"):
        sampler.weights_version()
    assert time.monotonic() - start > 0.4


@pytest.mark.parametrize("address", ["", "1234", ":1234", "node:", "node:http"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(RunError, match="not host:port"):
        Control.connect(address, "sampler", 1)
