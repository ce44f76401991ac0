"""The tools that the launcher's tests rely on do see what they are to see."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from launched import assert_nothing_left, leftovers

RENAMED = "import setproctitle, time; setproctitle.setproctitle('x'); print(1, flush=True); input()"


def test_a_process_that_has_renamed_itself_is_still_found(tmp_path: Path):
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RENAMED], stdin=subprocess.PIPE, stdout=output
        )
    try:
        while not log.read_text():
            assert process.poll() is None
            time.sleep(0.02)
        assert [found.pid for found in leftovers(tmp_path)] == [process.pid]
        with pytest.raises(AssertionError, match="left after 0 s"):
            assert_nothing_left(tmp_path, 0)
    finally:
        process.communicate(b"\n", timeout=60)
    assert_nothing_left(tmp_path, 60)
