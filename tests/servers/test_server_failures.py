"""A server that dies or hangs in the middle of a rollout is one clear sentence within its limit."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from real_servers import real_servers

from engine.errors import RunError
from engine.platform.waiting import first_error_itself
from engine.servers.client import Sampling, connect
from engine.weights.push.disk import update_from_disk
from tools.benchmarks.local_servers import RunningServer
from tools.benchmarks.tiny_model import tiny_qwen3_moe

pytestmark = [pytest.mark.slow, pytest.mark.serial]

LONG = Sampling(n=8, max_new_tokens=100, temperature=1.0, stop_token_ids=())


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[list[RunningServer]]:
    model = tiny_qwen3_moe(tmp_path_factory.mktemp("model"), seed=0)
    with real_servers(model, tmp_path_factory.mktemp("servers"), tp=(1, 1)) as servers:
        yield servers


async def generate_while(server: RunningServer, limit: float, disturb) -> None:
    """Keep one server busy with long groups, and ``disturb`` it as soon as it has answered one."""
    async with (
        connect({server.name: server.url}, request_seconds=limit, in_flight=2) as client,
        first_error_itself(),
        asyncio.TaskGroup() as tasks,
    ):
        busy = asyncio.Event()

        async def ask() -> None:
            while True:  # whatever is faster, a request is running when the server is disturbed
                await client.generate([5, 6, 7], LONG)
                busy.set()

        for _ in range(3):
            tasks.create_task(ask())
        tasks.create_task(disturb_when(busy, disturb))


async def disturb_when(busy: asyncio.Event, disturb: Callable[[], None]) -> None:
    await busy.wait()
    disturb()


@pytest.mark.parametrize("which", ["process", "scheduler"])
def test_a_stopped_server_hangs_by_name_within_the_limit(started, which):
    server = started[0]
    stopped = getattr(server, which)
    begun = 0.0

    def suspend() -> None:
        nonlocal begun
        begun = time.monotonic()
        stopped.suspend()

    try:
        with pytest.raises(RunError, match=re.escape(f"server-0 ({server.url}) hangs")) as error:
            asyncio.run(generate_while(server, 3.0, suspend))
        assert "/generate or /health within 3 s" in str(error.value)
        with pytest.raises(RunError, match=r"server-0 .* hangs: no answer to /update_weights"):
            update_from_disk({server.name: server.url}, server.log.parent, 1, limit_seconds=2.0)
        assert time.monotonic() - begun < 8
    finally:
        stopped.resume()


def test_servers_that_never_listen_are_named_with_their_last_word(started):
    silent = {"server-0": started[0].url, "server-7": "http://127.0.0.1:9"}
    said: list[str] = []

    async def wait() -> None:
        async with connect(silent, request_seconds=5) as client:
            await client.wait_until_healthy(4.0, said.append)

    with pytest.raises(RunError, match=r"within 4 s: server-7 \(.*\) does not listen yet$"):
        asyncio.run(wait())
    assert "server-0: healthy" in said


# These two come last: each leaves a dead server behind.


def test_a_server_whose_scheduler_is_killed_dies_by_name(started):
    server = started[0]
    begun = time.monotonic()
    with pytest.raises(RunError, match=re.escape(f"server-0 ({server.url}) died")):
        asyncio.run(generate_while(server, 60.0, server.scheduler.kill))
    assert time.monotonic() - begun < 30
    deadline = time.monotonic() + 10
    while alive(server.process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(server.process)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_killed_server_dies_by_name_and_leaves_no_process(started):
    server = started[1]
    family = server.process.children(recursive=True)
    begun = time.monotonic()
    with pytest.raises(RunError, match=re.escape(f"server-1 ({server.url}) died")):
        asyncio.run(generate_while(server, 60.0, server.process.kill))
    with pytest.raises(RunError, match=r"server-1 .* died or cannot be reached"):
        update_from_disk({server.name: server.url}, server.log.parent, 1, limit_seconds=5.0)
    assert time.monotonic() - begun < 5
    deadline = time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, family))
