"""Wait for another party with a name, a limit and a message that says what that party was doing.

Every wait of the engine goes through here: a run that stands still for one lost answer must say
which one, and whom to ask, instead of holding idle machines.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from engine.errors import RunError

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.2
NOTICE_SECONDS = 60.0

_log = logging.getLogger(__name__)


def wait_for(
    name: str,
    poll: Callable[[], T | None],
    limit_seconds: float,
    who: Callable[[], str],
    pause: Callable[[float], object] | None = None,
) -> T:
    """Call ``poll`` until it returns something other than None, and return that.

    Args:
        name: what is waited for, as it will stand in the message: "rollout 12".
        poll: a quick look that does not block; what it raises is passed on.
        limit_seconds: ``poll`` is called a last time once this has passed.
        who: one clause about the party that has to act: what it last said and how long ago.
        pause: what to do for so many seconds between two looks; it may return early to have
            ``poll`` called at once. By default, sleep.

    Raises:
        RunError: the limit passed; says what was waited for, how long, and what ``who()`` answers.
    """
    pauses = _pauses(name, limit_seconds, who)
    while (found := poll()) is None:
        (pause or time.sleep)(next(pauses))
    return found


async def wait_for_async(
    name: str,
    poll: Callable[[], T | Awaitable[T | None] | None],
    limit_seconds: float,
    who: Callable[[], str],
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """:func:`wait_for` that leaves the event loop free; ``poll`` may be a coroutine function.

    The limit does not interrupt a ``poll`` that hangs: an awaited one brings its own time limit.
    """
    pauses = _pauses(name, limit_seconds, who)
    while True:
        found = poll()
        if inspect.isawaitable(found):
            found = await found
        if found is not None:
            return found
        await pause(next(pauses))


def _pauses(name: str, limit_seconds: float, who: Callable[[], str]) -> Iterator[float]:
    """Yield the seconds to sleep between looks; log now and then; raise when the limit passed."""
    start = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    notice = NOTICE_SECONDS
    while (waited := time.monotonic() - start) < limit_seconds:
        if waited >= notice:
            notice += NOTICE_SECONDS
            _log.warning(
                "waiting for %s: %.0f s of %g s; %s", name, waited, limit_seconds, _ask(who)
            )
        yield min(pause, limit_seconds - waited)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
    raise RunError(f"waited {limit_seconds:g} s for {name}; {_ask(who)}")


def _ask(who: Callable[[], str]) -> str:
    # The party may be gone together with the place it spoke through: that is the answer then.
    try:
        return who()
    except RunError as error:
        return str(error)


@asynccontextmanager
async def first_error_itself() -> AsyncIterator[None]:
    """Raise the first error of the ``asyncio.TaskGroup`` inside, not a group that holds it.

    The task group has cancelled the other tasks by then.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
