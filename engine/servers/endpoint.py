"""HTTP endpoint of one sampling server; every failure becomes one sentence."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import orjson

from engine.errors import RunError
from engine.platform.open_files import require_open_files

_Send = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
_JSON = {"Content-Type": "application/json"}
_LONGEST_QUOTE = 300


def open_session(connections: int = 1, key: str | None = None) -> aiohttp.ClientSession:
    """Open the connections that :class:`Endpoint` uses; an async context manager.

    One connection per request: SGLang closes idle ones after 5 s, and a request sent at that very
    moment would look like a server that died.

    Args:
        connections: at the same time, at most; the process may open so many files when this
            returns.
        key: the key of the configuration that ``connections`` comes from.

    Raises:
        RunError: the hard limit of open files is too low for them.
    """
    require_open_files(connections, f"{connections:,} connections to servers", key)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))


@dataclass
class Endpoint:
    """A server's name in the run, its base URL, and when it last answered anything."""

    name: str
    url: str
    last_answer: float | None = None
    """``time.monotonic()`` of the last answer, None before the first. That it is not healthy (yet)
    is no answer: a server's HTTP process can say so while what computes stands still."""

    def __str__(self) -> str:
        return f"{self.name} ({self.url})"

    async def post(
        self,
        session: aiohttp.ClientSession,
        path: str,
        request: object,
        limit_seconds: float | None,
        *,
        body_seconds: float | None = None,
    ) -> Any:
        """Send ``request`` as JSON to ``path`` and return the answer's JSON.

        Args:
            limit_seconds: until the whole answer is here; None: the caller has a limit of its own.
            body_seconds: from the answer's head to its end. A server sends both at once, however
                long it has computed: one that stops in between sends the rest never.

        Raises:
            RunError: no connection, or it broke; no answer within the limit; an answer that is no
                HTTP; an HTTP status other than 200 (with the server's message); an answer that is
                not JSON.
        """
        send = partial(session.post, self.url + path, data=orjson.dumps(request), headers=_JSON)
        return self._json(await self._exchange(send, path, limit_seconds, body_seconds), path)

    async def get(self, session: aiohttp.ClientSession, path: str, limit_seconds: float) -> Any:
        """Return the JSON found at ``path``; raises RunError as :meth:`post` does."""
        return self._json(await self._get(session, path, limit_seconds), path)

    async def command(
        self, session: aiohttp.ClientSession, path: str, limit_seconds: float
    ) -> None:
        """Send the GET request ``path`` and ignore the answer; raises RunError as :meth:`post`."""
        await self._get(session, path, limit_seconds)

    async def _get(self, session: aiohttp.ClientSession, path: str, limit_seconds: float) -> bytes:
        return await self._exchange(partial(session.get, self.url + path), path, limit_seconds)

    async def _exchange(
        self,
        send: _Send,
        path: str,
        limit_seconds: float | None,
        body_seconds: float | None = None,
    ) -> bytes:
        limit, missing = aiohttp.ClientTimeout(total=limit_seconds), "no answer"
        try:
            # A server of a run sends nobody elsewhere: a redirection is a refusal.
            async with send(timeout=limit, allow_redirects=False) as response:
                missing = "only the beginning of an answer"
                async with asyncio.timeout(body_seconds):
                    answer = await response.read()
        except TimeoutError:
            seconds = body_seconds if limit_seconds is None else limit_seconds
            raise RunError(
                f"{self} hangs: {missing} to {path} within {seconds:g} s; {self.silence()}"
            ) from None
        except aiohttp.ClientError as error:
            raise RunError(self._broken(path, error)) from None
        self.last_answer = time.monotonic()
        if response.status != 200:
            elsewhere = response.headers.get("Location")
            said = f"it redirects to {elsewhere!r}" if elsewhere else _message(answer)
            raise RunError(f"{self} refused {path}: HTTP {response.status}: {said}")
        return answer

    def _json(self, answer: bytes, path: str) -> Any:
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError:
            pass
        try:
            # Reads NaN and Infinity, too, so that whoever checks the numbers can name them.
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise RunError(f"{self} answered {path} with no JSON: {quote(answer)}") from None

    async def health(self, session: aiohttp.ClientSession, limit_seconds: float) -> str:
        """Return ``healthy``, or a clause that says what is missing; raises nothing."""
        limit = aiohttp.ClientTimeout(total=limit_seconds)
        try:
            async with session.get(f"{self.url}/health", timeout=limit) as response:
                if response.status == 200:
                    self.last_answer = time.monotonic()
                    return "healthy"
                return f"still starting (HTTP {response.status})"
        except aiohttp.ClientConnectorError:
            return "does not listen yet"
        except TimeoutError:
            return f"listens, but gave no answer within {limit_seconds:g} s"
        except aiohttp.ClientError as error:
            return f"broke the connection ({type(error).__name__})"

    def silence(self) -> str:
        """Return a clause that says when the server last answered."""
        if self.last_answer is None:
            return "it has never answered"
        return f"its last answer came {time.monotonic() - self.last_answer:.0f} s ago"

    def _broken(self, path: str, error: aiohttp.ClientError) -> str:
        """Return the sentence for a connection that was not made or broke."""
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            whose = "this process" if error.errno == errno.EMFILE else "this machine"
            return (
                f"{path} could not be sent to {self}: {whose} has too many open files (ulimit -n)"
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return (
                f"{self} answered {path} with no HTTP ({quote(error.message)}): another program "
                f"may listen there"
            )
        return (
            f"{self} died or cannot be reached: {path} ended with {type(error).__name__}; see the "
            f"server's log"
        )


def quote(answer: bytes | str) -> str:
    """Return the beginning of what a server said, for an error message: one line, no controls."""
    text = answer if isinstance(answer, str) else answer.decode(errors="replace")
    text = " ".join(text[: 2 * _LONGEST_QUOTE].split())
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    if len(shown) > _LONGEST_QUOTE:
        return f"{shown[:_LONGEST_QUOTE]}..."
    return shown or "(nothing)"


def _message(answer: bytes) -> str:
    """Return the ``message`` of SGLang's error answers, or the beginning of any other."""
    try:
        found = orjson.loads(answer)
        return quote(str(found.get("error", found)["message"]))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return quote(answer)
