"""Tell the trainer every few seconds what this process is doing, from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from engine.errors import RunError
from engine.platform.waiting import first_error_itself
from engine.rollout.control import Control

BEAT_SECONDS = 2.0


@asynccontextmanager
async def heartbeat(
    control: Control, over: Callable[[], bool]
) -> AsyncIterator[Callable[[str], None]]:
    """Yield ``say(doing)``; what was said last is sent to ``control`` while the block runs.

    A trainer that has gone thereby ends the block with the :class:`RunError` of ``control``,
    whatever it is waiting for, unless ``over()`` says that the trainer may go.
    """
    doing = "starting"

    def say(words: str) -> None:
        nonlocal doing
        doing = words

    async def beat() -> None:
        while True:
            try:
                # In the loop's own thread: it takes microseconds, and SIGTERM can interrupt it.
                control.say(doing)
            except RunError:
                if over():
                    return
                raise
            await asyncio.sleep(BEAT_SECONDS)

    async with first_error_itself(), asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(beat())
        yield say
        beating.cancel()
