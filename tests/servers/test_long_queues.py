"""Requests that wait: in the client for room, in a server's queue, for a long answer.

A server that works is not said to hang, however long one request takes; one that is silent is. The
server here is a few lines in the same event loop.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from aiohttp import web
from test_client import Handler, answering, sample, serving

from engine.errors import RunError
from engine.servers.client import Completion, Sampling, connect

ONE = Sampling(n=1, max_new_tokens=6, temperature=1.0, stop_token_ids=(1,))
WELL = answering("")


class Queue:
    """A server that answers one request at a time, after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.here = self.most = self.answered = 0
        self._turn = asyncio.Lock()

    async def generate(self, request: web.Request) -> web.Response:
        self.here += 1
        self.most = max(self.most, self.here)
        async with self._turn:
            await asyncio.sleep(self.seconds)
        self.here -= 1
        self.answered += 1
        return web.json_response(sample([4, 1]))


async def ask_many(
    count: int, limit: float, *servers: dict[str, Handler], in_flight: int = 100
) -> list[list[Completion] | BaseException]:
    async with serving(**servers[0]) as first, serving(**servers[-1]) as second:
        urls = dict(zip(["server-0", "server-1"][: len(servers)], [first, second], strict=False))
        async with connect(urls, limit, in_flight=in_flight) as client:
            asked = (client.generate([7], ONE) for _ in range(count))
            return await asyncio.gather(*asked, return_exceptions=True)


def failures(answers: list[list[Completion] | BaseException]) -> list[BaseException]:
    return [answer for answer in answers if isinstance(answer, BaseException)]


def test_a_queue_longer_than_the_limit_is_answered_whole():
    async def scenario() -> None:
        server = Queue(0.06)
        answers = await ask_many(25, 0.5, {"generate": server.generate})  # 1.5 s of work
        assert not failures(answers)
        assert server.most == 25

    asyncio.run(scenario())


def test_no_server_has_more_requests_than_it_may_have_and_all_are_answered():
    async def scenario() -> None:
        quick, slow = Queue(0.01), Queue(0.05)
        servers = ({"generate": quick.generate}, {"generate": slow.generate})
        answers = await ask_many(30, 0.4, *servers, in_flight=2)
        assert not failures(answers)
        assert (quick.most, slow.most) == (2, 2)
        assert quick.answered > slow.answered  # whoever has room gets the next

    asyncio.run(scenario())


def test_a_long_answer_of_a_server_that_says_it_works_is_waited_for():
    async def scenario() -> None:
        answers = await ask_many(1, 0.4, {"generate": Queue(1.2).generate, "health": WELL})
        assert not failures(answers)

    asyncio.run(scenario())


def test_a_server_that_says_it_is_not_well_hangs_by_name_with_all_of_its_requests():
    async def scenario() -> None:
        ill = {"generate": Queue(30).generate, "health": answering("", status=503)}
        begun = time.monotonic()
        answers = await ask_many(3, 0.5, ill)
        assert time.monotonic() - begun < 3
        for failure in failures(answers):
            assert isinstance(failure, RunError)
            assert "hangs: no answer to /generate or /health within 0.5 s" in str(failure)
            assert "servers.request_seconds" in str(failure)
        assert len(failures(answers)) == 3

    asyncio.run(scenario())


def test_silence_counts_from_the_last_answer_and_anew_for_later_requests():
    turns = iter([0.0, 30.0, 0.0])

    async def generate(request: web.Request) -> web.Response:
        await asyncio.sleep(next(turns))
        return web.json_response(sample([4, 1]))

    async def scenario() -> None:
        async with (
            serving(generate=generate) as url,
            connect({"server-0": url}, 0.4) as client,
        ):
            assert await client.generate([7], ONE)
            await asyncio.sleep(0.6)  # nothing is asked: that is no silence
            begun = time.monotonic()
            with pytest.raises(RunError, match=r"hangs: .*; its last answer came 1 s ago"):
                await client.generate([7], ONE)
            assert time.monotonic() - begun >= 0.4
            assert await client.generate([7], ONE)

    asyncio.run(scenario())


def test_an_answer_that_the_server_cut_short_is_an_error_of_the_server():
    cut = sample([4, 5, 6], finish_reason={"type": "length", "length": 3})

    async def scenario() -> None:
        (failure,) = failures(await ask_many(1, 5, {"generate": answering(cut)}))
        assert "server-0" in str(failure)
        assert "cut one at 3 of the 6 tokens" in str(failure)
        assert "servers.max_total_tokens" in str(failure)

    asyncio.run(scenario())


@pytest.fixture
def few_files() -> Iterator[None]:
    """A process that may open hardly one file more than it has open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_connection_for_want_of_open_files_is_not_a_dead_server(few_files):
    async def scenario() -> None:
        async with serving(generate=WELL) as url, connect({"server-0": url}, 5) as client:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            with pytest.raises(RunError, match=r"/generate could not be sent .* open files"):
                await client.generate([7], ONE)

    asyncio.run(scenario())


LIMITS = """
import asyncio, resource, sys
from engine.errors import clear_errors
from engine.servers.client import connect
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, int(sys.argv[1])))
    async with connect({"server-0": "http://127.0.0.1:9"}, 5, in_flight=1000):
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
with clear_errors():
    asyncio.run(main())
"""


def limited(hard: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITS, str(hard)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_soft_limit_of_open_files_is_raised():
    assert limited(4000).stdout == "1257\n"  # 1000 requests, one for health, 256 for all else


def test_a_hard_limit_of_open_files_that_is_too_low_is_named_at_the_start():
    done = limited(1200)
    assert done.returncode == 1
    assert done.stderr == (
        "error: 1,001 connections to servers need 1,257 open files, 256 of them for all else, but "
        "the hard limit of this process (ulimit -Hn) is 1,200; have it raised, or lower "
        "servers.requests_in_flight\n"
    )
