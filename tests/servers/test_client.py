"""The client's side of a conversation: which server is asked, and what is made of odd answers.

The server here is a few lines in the same event loop; ``test_server.py`` talks to the real one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.errors import RunError
from engine.servers.client import Completion, Sampling, SamplingClient, connect
from engine.weights.push.disk import _update_all

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAIR = Sampling(n=2, max_new_tokens=8, temperature=1.0, stop_token_ids=(1,), top_p=0.9)


def sample(tokens: list[int], **meta: Any) -> dict[str, Any]:
    described = {
        "output_token_logprobs": [[-0.5 * t, t, None] for t in tokens],
        "finish_reason": {"type": "stop", "matched": 1},
        "weight_versions": [{"version": "4", "start": 0, "end": len(tokens)}],
    }
    return {"output_ids": tokens, "meta_info": described | meta}


def named(token: str) -> dict[str, Any]:
    """An answer of one token that is given as text."""
    return sample([3], output_token_logprobs=[[-1, token, None]]) | {"output_ids": [token]}


@asynccontextmanager
async def serving(**handlers: Handler) -> AsyncIterator[str]:
    """A server on 127.0.0.1 with one POST handler per path; yields its URL."""
    app = web.Application()
    for path, handler in handlers.items():
        app.router.add_route("*", f"/{path}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # handlers may sleep for longer
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(body: Any, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        if isinstance(body, str):
            return web.Response(text=body, status=status)
        return web.json_response(body, status=status)

    return handler


async def ask(
    handler: Handler, sampling: Sampling = PAIR, limit: float = 5, **more: Any
) -> list[Completion]:
    async with (
        serving(generate=handler) as url,
        connect({"server-0": url}, limit, **more) as client,
    ):
        return await client.generate([7, 8], sampling)


def test_a_group_is_asked_for_with_ids_and_read_with_its_version():
    asked: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response([sample([3, 1]), sample([4, 5, 1])])

    group = asyncio.run(ask(handler))
    assert group == [
        Completion([3, 1], [-1.5, -0.5], "stop", 4),
        Completion([4, 5, 1], [-2.0, -2.5, -0.5], "stop", 4),
    ]
    parameters = {"n": 2, "max_new_tokens": 8, "temperature": 1.0, "stop_token_ids": [1]}
    assert asked == [
        {
            "input_ids": [7, 8],
            "sampling_params": parameters | {"top_p": 0.9, "top_k": -1},
            "return_logprob": True,
        }
    ]


def test_a_single_sample_comes_without_a_list():
    one = Sampling(n=1, max_new_tokens=8, temperature=0.0, stop_token_ids=())
    assert asyncio.run(ask(answering(sample([3])), one)) == [Completion([3], [-1.5], "stop", 4)]


def test_a_sample_across_an_update_has_the_oldest_of_its_versions():
    spans = [{"version": "12", "start": 0, "end": 1}, {"version": "9", "start": 1, "end": 2}]
    group = asyncio.run(ask(answering([sample([3, 1], weight_versions=spans), sample([1])])))
    assert [s.weight_version for s in group] == [9, 4]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<html>busy</html>", r"no JSON: <html>busy"),
        ([sample([3, 1])], r"1 samples instead of 2"),
        ([sample([3, 1]), {"output_ids": [3]}], r"KeyError: 'meta_info'"),
        (
            [sample([3, 1]), sample([3], output_token_logprobs=[])],
            r"output_token_logprobs is of other tokens",
        ),
        ([sample([3]), sample([3], weight_versions=[])], r"malformed"),
        (
            [sample([3]), sample([3], weight_versions=[{"version": "default"}])],
            r"invalid literal for int\(\) with base 10: 'default'",
        ),
        ([sample([3]), sample([3], output_token_logprobs=[["-1", 3, None]])], r"malformed"),
        ([sample([3]), sample([12, 1])], r"token 12 is outside the vocabulary of 12 tokens"),
        ([sample([3]), sample([-1, 1])], r"token -1 is outside the vocabulary"),
        ([sample([3]), named("3")], r"token '3' is no integer"),
        ([sample([3]), sample([3], finish_reason=None)], r"malformed"),
        (None, r"malformed"),
        (7, r"malformed"),
    ],
)
def test_a_malformed_answer_is_a_run_error_that_names_the_server(body, complaint):
    with pytest.raises(RunError, match=complaint) as error:
        asyncio.run(ask(answering(body), vocabulary_size=12))
    assert re.match(r"server-0 \(http://\S+\) (gave a malformed answer|answered)", str(error.value))


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf")])
def test_a_log_probability_that_is_not_finite_is_the_servers_fault(value: float | None):
    entries = [[-0.2, 4, None], [value, 1, None]]
    body = [sample([3]), sample([4, 1], output_token_logprobs=entries)]
    with pytest.raises(RunError) as error:
        asyncio.run(ask(answering(body)))
    said = str(error.value)
    assert re.match(r"server-0 \(http://\S+\) computed no finite log-probability", said)
    assert "at response token 1" in said and "prompt of 2 tokens" in said and "log" in said


def test_an_http_error_carries_the_servers_own_words():
    body = {"error": {"message": "temperature must be a non-negative number"}}
    with pytest.raises(RunError, match=r"refused /generate: HTTP 400: temperature must be"):
        asyncio.run(ask(answering(body, status=400)))
    with pytest.raises(RunError, match=r"refused /generate: HTTP 500: Internal Server Error"):
        asyncio.run(ask(answering("Internal Server Error", status=500)))


def test_a_server_that_does_not_answer_hangs_within_the_limit():
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(2.0)
        return web.json_response([])

    with pytest.raises(
        RunError,
        match=r"hangs: no answer to /generate or /health within 0\.3 s .*; it has never answered",
    ):
        asyncio.run(ask(handler, limit=0.3))


def test_a_connection_that_breaks_is_a_server_that_died():
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(RunError, match=r"server-0 \(http.*\) died .*ServerDisconnectedError"):
        asyncio.run(ask(handler))


def test_groups_go_to_the_server_that_owes_the_fewest_samples():
    asked: list[tuple[int, int]] = []
    release = asyncio.Event()

    def handler(index: int) -> Handler:
        async def generate(request: web.Request) -> web.Response:
            n = (await request.json())["sampling_params"]["n"]
            asked.append((index, n))
            await release.wait()
            return web.json_response([sample([1])] * n if n > 1 else sample([1]))

        return generate

    async def scenario(client: SamplingClient) -> None:
        groups = []
        for n in (8, 2, 2, 2, 2, 1, 1):  # server 0 owes 8 until server 1 owes as many
            wanted = Sampling(n=n, max_new_tokens=8, temperature=1.0, stop_token_ids=(1,))
            groups.append(asyncio.create_task(client.generate([7], wanted)))
            await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(*groups)

    async def run() -> None:
        async with (
            serving(generate=handler(0)) as first,
            serving(generate=handler(1)) as second,
            connect({"server-0": first, "server-1": second}, 5) as client,
        ):
            await scenario(client)

    asyncio.run(run())
    assert asked == [(0, 8), (1, 2), (1, 2), (1, 2), (1, 2), (0, 1), (1, 1)]


def test_all_servers_are_waited_for_and_progress_is_told_once_per_change():
    said: list[str] = []
    asked = 0

    async def starting(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503 if asked <= 3 else 200)

    async def run() -> None:
        async with (
            serving(health=answering("")) as first,
            serving(health=starting) as second,
            connect({"server-0": first, "server-1": second}, 5) as client,
        ):
            await client.wait_until_healthy(10, said.append)

    asyncio.run(run())
    assert sorted(said) == [
        "server-0: healthy",
        "server-1: healthy",
        "server-1: still starting (HTTP 503)",
    ]


def test_an_update_that_the_server_did_not_take_over_is_noticed():
    done = answering({"success": True, "message": "Succeeded"})

    async def update(found: str) -> None:
        info = answering({"weight_version": found})
        flush = answering("Cache flushed.")
        async with serving(
            update_weights_from_disk=done, model_info=info, flush_cache=flush
        ) as url:
            await _update_all({"server-0": url}, Path("weights/000005"), 5, limit_seconds=5)

    asyncio.run(update("5"))
    with pytest.raises(RunError, match=r"server-0 .*says that it has weight version '4'"):
        asyncio.run(update("4"))


def test_every_server_that_failed_to_update_is_named():
    async def update() -> None:
        refusing = answering({"success": False, "message": "no such file"}, status=400)
        async with serving(update_weights_from_disk=refusing) as url:
            urls = {"server-0": url, "server-1": "http://127.0.0.1:9"}
            await _update_all(urls, Path("weights/000005"), 5, limit_seconds=5)

    with pytest.raises(RunError) as error:
        asyncio.run(update())
    assert "pushing weight version 5: server-0" in str(error.value)
    assert "HTTP 400: no such file; server-1" in str(error.value)
