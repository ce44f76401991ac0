"""The reason for a process's end is found in its log, in whatever way it is told there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launchers.last_words import last_words, shut_itself_down

SERVER = "[2026-11-27 18:59:29]"
PIP = "/x/.venv/lib/python3.11/site-packages"


def test_our_own_error_line_counts_though_noise_follows():
    assert last_words(["error: first", "error: last", "[W] leaked object"]) == "last"
    assert last_words(["error: clear", "Traceback (most recent call last):", "KeyError: 1"]) == (
        "clear"
    )


def test_a_log_without_a_reason_has_none():
    assert last_words([]) is None
    assert last_words(["step 3/9", "    raise X", "2026-11-27 all is well"]) is None


def run(program: str, tmp_path: Path) -> list[str]:
    """The lines that a Python program leaves when it ends badly, with its place in a file."""
    file = tmp_path / "mine.py"
    file.write_text(program)
    command = [sys.executable, "-X", "faulthandler", str(file)]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()


def test_of_a_traceback_the_exception_and_the_line_of_ours(tmp_path):
    program = "import json\n\ndef read():\n    json.loads('{')\n\nread()\n"
    said = last_words([*run(program, tmp_path), "resource_tracker: leaked"])
    assert said is not None and said.startswith("json.decoder.JSONDecodeError: Expecting property")
    assert said.endswith(f" ({tmp_path}/mine.py, line 4)")


@pytest.mark.parametrize("raised", ["AssertionError", "MemoryError", "KeyboardInterrupt"])
def test_an_exception_without_a_message_is_named_too(tmp_path, raised):
    assert (
        last_words(run(f"raise {raised}\n", tmp_path)) == f"{raised} ({tmp_path}/mine.py, line 1)"
    )


def test_of_chained_exceptions_the_last_is_told(tmp_path):
    program = "try:\n    {}[1]\nexcept KeyError:\n    raise RuntimeError('no such step')\n"
    assert last_words(run(program, tmp_path)) == (
        f"RuntimeError: no such step ({tmp_path}/mine.py, line 4)"
    )


def test_a_fatal_signal_is_told_with_its_place(tmp_path):
    said = last_words(run("import ctypes\n\nctypes.string_at(0)\n", tmp_path))
    assert said == f"Segmentation fault ({tmp_path}/mine.py, line 3)"


def test_of_an_exception_in_a_library_alone_its_innermost_place_is_told():
    lines = [
        "Traceback (most recent call last):",
        f'  File "{PIP}/torch/nn/functional.py", line 7, in f',
        "    return g()",
        f'  File "{PIP}/torch/_ops.py", line 12, in g',
        "RuntimeError: not enough memory: you tried to allocate 999 bytes.",
    ]
    assert last_words(lines) == f"{lines[-1]} (torch/_ops.py, line 12)"


def test_a_part_of_a_server_that_stumbled_is_named_though_the_server_says_more():
    lines = [
        f"Loading:   0%{SERVER} Scheduler hit an exception: Traceback (most recent call last):",
        f'  File "{PIP}/sglang/srt/loader.py", line 554, in load',
        '    raise RuntimeError("no weights")',
        "RuntimeError: no weights",
        "",
        f"{SERVER} Received sigquit from a child process. It usually means the child failed.",
        "Traceback (most recent call last):",
        "EOFError",
        f"{SERVER} kill_process_tree called: parent_pid=4, include_parent=True, pid=4",
    ]
    assert (
        last_words(lines)
        == "its Scheduler: RuntimeError: no weights (sglang/srt/loader.py, line 554)"
    )
    assert shut_itself_down(lines)
    assert not shut_itself_down(lines[:-1])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            f"{SERVER} Subprocess scheduler_0 (pid=19542) crashed with exit code -9. Triggering",
            "its process scheduler_0 (pid 19542) was killed by SIGKILL",
        ),
        (
            f"{SERVER} Subprocess detokenizer (pid=8) crashed with exit code 1. Triggering SIGQUIT",
            "its process detokenizer (pid 8) failed with exit status 1",
        ),
        (
            "RuntimeError: Rank 1 scheduler died during initialization (exit code: -9). If exit",
            "its process scheduler_1 was killed by SIGKILL",
        ),
        (
            f"{SERVER} ERROR:    [Errno 98] error while attempting to bind on address "
            "('127.0.0.1', 20001): address already in use",
            "cannot listen on 127.0.0.1:20001: address already in use",
        ),
        ("  what():  std::bad_alloc", "std::bad_alloc"),
        ("sglang serve: error: unrecognized arguments: --x", "unrecognized arguments: --x"),
    ],
)
def test_words_of_other_kinds(line, words):
    assert last_words(["before", line, "Sleeping 5 seconds before crash diagnostics"]) == words
