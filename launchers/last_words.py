"""Find in a process's log the reason for its end that it named itself.

A process of ours ends with one line ``error: ...``. Others say it in their own ways: a traceback, a
fatal signal that Python's fault handler describes, a C++ exception, argparse's and uvicorn's lines.
SGLang logs what its scheduler stumbled over, or which of its processes was killed, and then kills
itself: the signal that it ends with says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from launchers.process_tree import signal_name

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_PART_OF_SERVER = re.compile(r"(\w+) hit an exception: Traceback")
_CHILD_ENDED = re.compile(r"Subprocess (\w+) \(pid=(\d+)\) crashed with exit code (-?\d+)")
_CHILD_ENDED_EARLY = re.compile(r"Rank (\d+) scheduler died .*\(exit code: (-\d+)\)")
_NO_PORT = re.compile(r"error while attempting to bind on address \('([^']+)', (\d+)\): (.+)")
_FATAL = re.compile(r"Fatal Python error: (.+)")
_OTHERS = (
    re.compile(r"(?:^|\] )ERROR:\s+(.+)"),  # uvicorn
    re.compile(r"^\s+what\(\):\s+(.+)"),  # C++
    re.compile(r"^[\w. -]+: error: (.+)"),  # argparse
)
_SHUT_ITSELF_DOWN = re.compile(r"kill_process_tree called: .*include_parent=True")
_CONSEQUENCE = re.compile(
    r"Connection closed by peer|Connection reset by peer|Broken pipe|remote process exited"
    r"|Connection was likely closed|has gone: its control store|died or cannot be reached"
)


def last_words(lines: Sequence[str]) -> str | None:
    """Return the reason that a process named for its end, if ``lines`` of its log have one.

    Args:
        lines: of its latest start, to the end.

    Returns:
        The last ``error: ...`` line; else what a part of a server stumbled over, or how one of its
        processes ended; else the last line of the last traceback with the place in the code, or
        another word of the kinds above.
    """
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    for index, line in enumerate(lines):
        if found := _PART_OF_SERVER.search(line):
            return f"its {found[1]}: {_exception(lines, index) or 'an exception'}"
    for find in (_no_port, _child_s_end, _last_traceback, _fatal_error, _other):
        if (words := find(lines)) is not None:
            return words
    return None


def shut_itself_down(lines: Sequence[str]) -> bool:
    """Return whether the process, a server, has killed itself with all of its children."""
    return any(_SHUT_ITSELF_DOWN.search(line) for line in lines)


def is_consequence(words: str | None) -> bool:
    """Return whether ``words`` tell of the end of another process, and of nothing else."""
    return words is not None and _CONSEQUENCE.search(words) is not None


def _no_port(lines: Sequence[str]) -> str | None:
    found = next((f for line in lines if (f := _NO_PORT.search(line))), None)
    return f"cannot listen on {found[1]}:{found[2]}: {found[3]}" if found else None


def _child_s_end(lines: Sequence[str]) -> str | None:
    for line in lines:
        if found := _CHILD_ENDED.search(line):
            return f"its process {found[1]} (pid {found[2]}) {_ended(int(found[3]))}"
        if found := _CHILD_ENDED_EARLY.search(line):
            return f"its process scheduler_{found[1]} {_ended(int(found[2]))}"
    return None


def _ended(code: int) -> str:
    return f"was killed by {signal_name(-code)}" if code < 0 else f"failed with exit status {code}"


def _last_traceback(lines: Sequence[str]) -> str | None:
    begins = [index for index, line in enumerate(lines) if _TRACEBACK in line]
    return next((e for index in reversed(begins) if (e := _exception(lines, index))), None)


def _exception(lines: Sequence[str], begin: int) -> str | None:
    """Return the exception of the traceback that begins with a line, and where it was raised."""
    frames: list[str] = []
    for line in lines[begin + 1 :]:
        if not line.startswith(" ") and line:
            return f"{line}{_where(frames)}"
        frames.append(line)
    return None


def _where(frames: Sequence[str]) -> str:
    """Return the innermost of ``frames`` that is no library's, or the innermost of all."""
    places = [(f["file"], f["line"]) for f in map(_FRAME.match, frames) if f]
    own = [place for place in places if not re.search(r"/site-packages/|/lib/python|^<", place[0])]
    if not places:
        return ""
    file, line = (own or places)[-1]
    return f" ({file.rpartition('/site-packages/')[2]}, line {line})"


def _fatal_error(lines: Sequence[str]) -> str | None:
    for index, line in enumerate(lines):
        if found := _FATAL.search(line):
            return f"{found[1]}{_where(_frames_of_current_thread(lines[index + 1 :]))}"
    return None


def _frames_of_current_thread(lines: Sequence[str]) -> list[str]:
    """Return its frames, the innermost last; the fault handler prints the innermost first."""
    begins = [index for index, line in enumerate(lines) if line.startswith("Current thread")]
    after = lines[begins[0] + 1 :] if begins else ()
    return list(takewhile(_FRAME.match, after))[::-1]


def _other(lines: Sequence[str]) -> str | None:
    for line in reversed(lines):
        for kind in _OTHERS:
            if found := kind.search(line):
                return found[1]
    return None
