"""A task group's failure as the plain exception it is, for messages that a person reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def first_error_itself() -> AsyncIterator[None]:
    """Raise the first error of the ``asyncio.TaskGroup`` inside, not a group that holds it.

    The task group has cancelled the other tasks by then.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
