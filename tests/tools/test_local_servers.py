"""A server that dies while it starts ends the wait for all of them at once, with its last words."""

from __future__ import annotations

import sys
import time

import pytest

from engine.errors import RunError
from tools.benchmarks.local_servers import LocalServer, running

DIES = "raise MemoryError('no room for 7 GB of weights')"
IS_KILLED = "import os; print('loading', flush=True); os.kill(os.getpid(), 9)"
NEVER_LISTENS = "import time; time.sleep(600)"


def server(name: str, program: str) -> LocalServer:
    return LocalServer(name, "http://127.0.0.1:9", (sys.executable, "-c", program), {})


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (DIES, r"failed with exit status 1 .*: MemoryError: no room for 7 GB of weights"),
        (IS_KILLED, r"was killed by SIGKILL (?s:.*)--- .*server-1\.log\nloading"),
    ],
)
def test_a_server_that_dies_while_it_starts_ends_the_wait_at_once(tmp_path, program, words):
    begun = time.monotonic()
    servers = [server("server-0", NEVER_LISTENS), server("server-1", program)]
    with (
        pytest.raises(RunError, match=f"^server-1 {words}"),
        running(servers, tmp_path, limit_seconds=300),
    ):
        pass
    assert time.monotonic() - begun < 60


def test_a_server_that_never_listens_is_named_at_the_limit(tmp_path):
    with (
        pytest.raises(RunError, match=r"ready within 0\.5 s: server-0 .* does not listen yet"),
        running([server("server-0", NEVER_LISTENS)], tmp_path, limit_seconds=0.5),
    ):
        pass
