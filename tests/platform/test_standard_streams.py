"""A process that was started without standard streams says nothing, and works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from engine.errors import RunError, clear_errors
with clear_errors():
    print("said")
    print("said", file=sys.stderr)
    assert os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT) > 2
    if sys.argv[2:]:
        raise RunError("that is all")
"""


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("failing", [False, True])
def test_closed_streams_take_no_file_and_end_no_process(
    tmp_path: Path, closed: tuple[int, ...], failing: bool
):
    def close() -> None:
        for number in closed:
            os.close(number)

    file = tmp_path / "result"
    command = [sys.executable, "-c", PROGRAM, str(file), *["fail"] * failing]
    done = subprocess.run(command, preexec_fn=close, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == int(failing)
    assert file.read_bytes() == b""
