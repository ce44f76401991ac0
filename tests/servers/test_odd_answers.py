"""Answers that no server of a run should give: each is one sentence that names the server.

They are written as bytes, since no HTTP library sends them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.servers.client import Completion, Sampling, connect
from engine.servers.endpoint import quote
from engine.weights.push.disk import _update_all

ONE = Sampling(n=1, max_new_tokens=4, temperature=1.0, stop_token_ids=(2,))
LIMIT_SECONDS = 0.5
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def http(body: object, status: str = "200 OK", head: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{head}\r\n".encode() + content


def sample(tokens: list[int], logprob: Any = -0.5, reason: Any = "stop") -> dict[str, Any]:
    return {
        "output_ids": tokens,
        "meta_info": {
            "output_token_logprobs": [[logprob, token, None] for token in tokens],
            "finish_reason": {"type": reason},
            "weight_versions": [{"version": "3"}],
        },
    }


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """A server that is healthy and leaves the bytes of all else to ``answer``; yields its URL."""
    open_now = set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
        if b"/health" in asked:
            writer.write(http(b""))
        else:
            await answer(asked, writer)
        writer.close()
        open_now.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


def sending(content: bytes) -> Answer:
    async def answer(asked: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    return answer


async def generate(answer: Answer) -> list[Completion]:
    async with (
        answering(answer) as url,
        connect({"server-1": url}, LIMIT_SECONDS, vocabulary_size=16) as client,
    ):
        return await client.generate([9], ONE)


def test_the_server_of_these_tests_is_understood_where_it_answers_well():
    found = asyncio.run(generate(sending(http(sample([5, 2])))))
    assert found == [Completion([5, 2], [-0.5, -0.5], "stop", 3)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (http([], "502 Bad Gateway"), "refused /generate: HTTP 502: []"),
        (http(b"", "500 Oops"), "refused /generate: HTTP 500: (nothing)"),
        (
            http(b"<p>\n no \x1b[1mroom\r\n</p>", "503 Busy"),
            r"HTTP 503: <p> no \x1b[1mroom </p>",
        ),
        (
            http(b"", "308 Moved", "Location: http://10.0.0.1/login\r\n"),
            "refused /generate: HTTP 308: it redirects to 'http://10.0.0.1/login'",
        ),
        (b"220 mail.example ESMTP\r\n", "answered /generate with no HTTP (Bad status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "with no HTTP (Invalid character"),
        (http(b"[" * 100_000), "answered /generate with no JSON: [[["),
        (http(sample([5, 2], logprob=-(10**400))), "computed no finite log-probability"),
        (http(sample([5, 2], logprob=True)), "log-probability True at response token 0"),
        (http(sample([True, 2])), "token True is no integer"),
        (http(sample([5, 6, 7, 8, 2])), "5 tokens, where max_new_tokens is 4"),
        (http(sample([5, 2], reason="tired")), "finish reason 'tired', expected one of stop, "),
        (http(sample([5, 2], reason=["stop"])), "finish reason ['stop'], expected one of stop, "),
    ],
)
def test_an_answer_that_cannot_be_one_is_a_single_line_about_its_server(content: bytes, says: str):
    with pytest.raises(RunError) as error:
        asyncio.run(generate(sending(content)))
    said = str(error.value)
    assert said.startswith("server-1 (http://127.0.0.1:") and says in said
    assert said.isprintable() and len(said) < 700


def test_an_answer_that_stops_or_trickles_behind_its_head_ends_within_the_limit():
    async def stops(asked: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(sample([5, 2]))[:-9])
        await asyncio.sleep(30)

    async def trickles(asked: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\n[\r\n")
            await asyncio.sleep(0.05)

    for answer in (stops, trickles):
        with pytest.raises(RunError, match=r"hangs: only the beginning of an answer to /generate"):
            asyncio.run(asyncio.wait_for(generate(answer), 10))


@pytest.mark.parametrize("info", [[], None, {"weight_version": ["x" * 5000]}])
def test_a_version_that_is_none_does_not_pass_for_the_pushed_one(info: object):
    async def answer(asked: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(info if b"model_info" in asked else {"success": True}))

    async def push() -> None:
        async with answering(answer) as url:
            await _update_all({"server-0": url}, Path("weights/000002"), 2, limit_seconds=5)

    with pytest.raises(RunError, match="says that it has weight version") as error:
        asyncio.run(push())
    assert len(str(error.value)) < 700


def test_what_a_server_said_is_quoted_on_one_line():
    assert quote(b"a\n\n b\tc\x00\xff") == r"a b c\x00" + "\ufffd"
    assert quote("d" * 5000) == "d" * 300 + "..."
    assert quote("") == quote(b" \n") == "(nothing)"
