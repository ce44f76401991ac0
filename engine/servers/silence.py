"""Watch a server that has requests to answer, and end them when it has been silent too long.

How long an answer takes says nothing: it may have waited in the server's queue, or be a long one. A
server works as long as it answers anything; where it has not for a while it is asked for its
health, for which SGLang has its scheduler answer, between two batches if it is busy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from engine.errors import RunError
from engine.servers.endpoint import Endpoint

QUIET_SHARE = 0.25
"""Part of the limit after which a server is asked for its health."""
PAUSE_SECONDS = 0.25
"""Between two questions for health, where the answer was that there is none."""


class SilenceWatch:
    """Watches one server; a request that it answers is inside :meth:`request`.

    Args:
        endpoint: the server.
        session: for its health.
        limit_seconds: how long it may be silent while it has a request.
    """

    def __init__(
        self, endpoint: Endpoint, session: aiohttp.ClientSession, limit_seconds: float
    ) -> None:
        self._endpoint, self._session, self._limit = endpoint, session, limit_seconds
        self._requests: set[asyncio.Timeout] = set()
        self._since = 0.0  # when the oldest of an unbroken row of requests was sent
        self._watching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def request(self, path: str) -> AsyncIterator[None]:
        """Let the block, which asks the server for ``path``, go on while the server works.

        Raises:
            RunError: the server was silent for the limit.
        """
        if not self._requests:
            self._since = time.monotonic()
        timeout = asyncio.timeout(None)
        self._requests.add(timeout)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise RunError(
                f"{self._endpoint} hangs: no answer to {path} or /health within {self._limit:g} s "
                f"(servers.request_seconds); {self._endpoint.silence()}"
            ) from None
        finally:
            self._requests.discard(timeout)
            if not self._requests and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    def _silent_seconds(self) -> float:
        return time.monotonic() - max(self._since, self._endpoint.last_answer or 0.0)

    async def _watch(self) -> None:
        """Look after the server until its limit has passed; then end all of its requests."""
        while (silent := self._silent_seconds()) < self._limit:
            if (quiet := self._limit * QUIET_SHARE - silent) > 0:
                await asyncio.sleep(quiet)
            elif await self._endpoint.health(self._session, self._limit - silent) != "healthy":
                await asyncio.sleep(PAUSE_SECONDS)
        now = asyncio.get_running_loop().time()
        self._watching = None  # whoever asks from now on starts anew
        while self._requests:
            self._requests.pop().reschedule(now)
