"""Exchange a few words between trainer and sampler over a ``torch.distributed.TCPStore``.

Trainer rank 0 hosts the store at an address (host:port) that the launcher has chosen; a new run
starts with an empty one. Data never goes this way: samples travel through the rollout store,
weights through a push.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import TypeVar

from torch.distributed import TCPStore

from engine.errors import RunError
from engine.platform.waiting import wait_for
from engine.rollout.lineage import Start
from engine.rollout.notice import Notice, noticing

T = TypeVar("T")

# A healthy store answers in well under a millisecond; this is for a machine under full load.
ACCESS_SECONDS = 20.0
# For the last word of a party that leaves.
LEAVE_SECONDS = 1.0
SERVERS_READY = "servers_ready"


class Control:
    """One party's ("trainer", "sampler") view of the control words.

    Every method returns within ``ACCESS_SECONDS`` and raises :class:`RunError` when the store does
    not answer in that time or has gone: then trainer rank 0 has.
    """

    def __init__(self, store: TCPStore, address: str, party: str) -> None:
        self._store = store
        self._address = address
        self._party = party

    @classmethod
    def host(cls, address: str, party: str = "trainer") -> Control:
        """Open the store at ``address`` (host:port) in this process.

        Raises:
            RunError: the address is not free or not host:port.
        """
        host, port = _parse(address)
        try:
            # Our own socket: torch would listen on every interface of the machine.
            listener = socket.create_server((host, port)).detach()
            store = TCPStore(
                host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener
            )
        except (OSError, RuntimeError) as error:
            raise RunError(f"cannot open the control store at {address}: {_first(error)}") from None
        return cls(store, address, party)

    @classmethod
    def connect(cls, address: str, party: str, limit_seconds: float) -> Control:
        """Connect to the store that trainer rank 0 hosts, waiting until it is there.

        Raises:
            RunError: nobody listened within the limit, or the address is not host:port.
        """
        host, port = _parse(address)
        # torch retries too, but prints a stack trace for every attempt.
        wait_for(
            f"the control store at {address}",
            lambda: _listens(host, port),
            limit_seconds,
            lambda: "trainer rank 0 has not opened it",
        )
        try:
            limit = timedelta(seconds=ACCESS_SECONDS)
            store = TCPStore(host, port, is_master=False, timeout=limit)
        except RuntimeError as error:
            raise RunError(f"cannot use the control store at {address}: {_first(error)}") from None
        return cls(store, address, party)

    def announce_start(self, start: Start) -> None:
        """Trainer: where this start of the run begins, before anything is sampled."""
        self._set("start", json.dumps(start.as_json()))

    def start(self) -> Start | None:
        """Return where this start begins, None before it was announced; made for polling."""
        word = self._get("start")
        return None if word is None else Start.from_json(json.loads(word))

    def announce_servers_ready(self) -> None:
        """Sampler: all servers are healthy; weights can be pushed."""
        self._set(SERVERS_READY, "yes")

    def servers_ready(self) -> bool | None:
        """Return True once the servers were announced, None before; made for polling."""
        return None if self._get(SERVERS_READY) is None else True

    def notice_of_servers(self) -> AbstractContextManager[Notice]:
        """Yield what is given when the servers are announced."""
        return self._notice(SERVERS_READY)

    def announce_weights_version(self, version: int) -> None:
        """Trainer: every server now answers with the weights after ``version`` updates."""
        self._set("weights_version", str(version))
        self._set(_of_weights(version), "yes")

    def weights_version(self) -> int | None:
        """Return the version that all servers have, None before the first push."""
        word = self._get("weights_version")
        return None if word is None else int(word)

    def notice_of_weights(self, version: int) -> AbstractContextManager[Notice]:
        """Yield what is given when exactly ``version`` is announced."""
        return self._notice(_of_weights(version))

    def announce_stored(self, store: str, step: int) -> None:
        """Sampler: ``step`` of the rollout store of that name can be read."""
        self._set(_of_step(store, step), "yes")

    def notice_of_step(self, store: str, step: int) -> AbstractContextManager[Notice]:
        """Yield what is given when ``step`` of the rollout store of that name is announced."""
        return self._notice(_of_step(store, step))

    def say(self, doing: str) -> None:
        """Tell the others what this party is doing, in words a person reads in an error message."""
        self._set(f"doing/{self._party}", json.dumps({"doing": doing, "at": time.time()}))

    def last_said(self, party: str) -> str:
        """Return a clause for a waiting message: what ``party`` said it was doing, and its age."""
        word = self._get(f"doing/{party}")
        if word is None:
            return f"the {party} has not said anything yet"
        said = json.loads(word)
        age = max(0.0, time.time() - said["at"])  # clocks of two machines may differ a little
        return f'the {party} said {age:.0f} s ago: "{said["doing"]}"'

    def _set(self, key: str, word: str) -> None:
        self._bounded(lambda: self._store.set(key, word))

    def _get(self, key: str) -> str | None:
        def access() -> str | None:
            # `get` alone would block until somebody sets the key.
            return self._store.get(key).decode() if self._store.check([key]) else None

        return self._bounded(access)

    def _notice(self, key: str) -> AbstractContextManager[Notice]:
        def set_key() -> None:
            with suppress(RunError):
                self._bounded(lambda: self._store.set(key, "left"), LEAVE_SECONDS)

        return noticing(self._store, key, set_key)

    def _bounded(self, access: Callable[[], T], limit_seconds: float | None = None) -> T:
        """Run ``access`` in a thread, for the store's own timeout does not cover a frozen host."""
        answers: queue.SimpleQueue[tuple[T | None, RuntimeError | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((access(), None))
            except RuntimeError as error:  # torch's DistNetworkError, DistStoreError are such
                answers.put((None, error))

        limit_seconds = limit_seconds or ACCESS_SECONDS
        threading.Thread(target=run, daemon=True, name="control").start()
        try:
            answer, error = answers.get(timeout=limit_seconds)
        except queue.Empty:
            raise RunError(
                f"trainer rank 0 is frozen: its control store at {self._address} has not answered "
                f"for {limit_seconds:g} s"
            ) from None
        if error is not None:
            raise RunError(
                f"trainer rank 0 has gone: its control store at {self._address} does not answer "
                f"({_first(error)})"
            ) from None
        return answer  # type: ignore[return-value]


def _of_weights(version: int) -> str:
    return f"weights_version/{version}"


def _of_step(store: str, step: int) -> str:
    return f"stored/{store}/{step}"


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RunError(f'control address "{address}" is not host:port')
    return host, int(port)


def _listens(host: str, port: int) -> bool | None:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return None


def _first(error: Exception) -> str:
    return str(error).split("\n")[0].strip()
