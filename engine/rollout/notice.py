"""Wake a wait as soon as the other party sets a key of the control store.

A wait is still decided by looking at what is waited for (a file, a number), and has its limit; the
key only ends a pause between two looks. So a notice that is lost costs a fifth of a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch.distributed import Store

_FOR_EVER = timedelta(days=365)
_LEAVE_SECONDS = 1.0
"""For the thread to end, once its key is set."""


class Notice:
    """Pauses of one wait that end when its key is set; made by :func:`noticing`."""

    def __init__(self) -> None:
        self._given = threading.Event()
        self._seen = False

    def pause(self, seconds: float) -> None:
        """Return after ``seconds``, or as soon as the key is set; early once only.

        What the key tells of can be later than the key, on a network's file system: the wait then
        goes on as if there were none.
        """
        if self._seen:
            time.sleep(seconds)
        else:
            self._seen = self._given.wait(seconds)

    async def pause_async(self, seconds: float) -> None:
        """:meth:`pause` that leaves the event loop free."""
        await asyncio.to_thread(self.pause, seconds)

    def give(self) -> None:
        """End the present pause, or the next."""
        self._given.set()


@contextmanager
def noticing(store: Store, key: str, set_key: Callable[[], None]) -> Iterator[Notice]:
    """Yield a notice that is given when ``key`` of ``store`` is set.

    A thread blocks in the store for it, on a connection of its own. It must have ended before the
    interpreter does: torch would abort the process.

    Args:
        store: the control store.
        key: that another party will set.
        set_key: sets it, within a limit; called when the block is left and nobody else has, to let
            the thread end.
    """
    notice = Notice()

    def wait() -> None:
        with suppress(RuntimeError):  # the store has gone: whoever looks next says so
            store.clone().wait([key], _FOR_EVER)
            notice.give()

    thread = threading.Thread(target=wait, daemon=True, name=f"notice of {key}")
    thread.start()
    try:
        yield notice
    finally:
        if thread.is_alive():
            set_key()
            thread.join(_LEAVE_SECONDS)
