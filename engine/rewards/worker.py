"""Score answers in a process that :class:`engine.rewards.workers.WorkerPool` can kill.

Started as ``python -m engine.rewards.worker MODULE PARENT_PID MEMORY_BYTES``. MODULE has
``prepare() -> None``, called once, and ``score(response, reference) -> Score``, called per answer.
Speaks JSON lines: says ``{"ready": true}`` on stdout when prepared, then answers every
``{"response", "reference"}`` on stdin with ``{"value", "outcome", "seconds"}`` or, where ``score``
raised, ``{"error", "seconds"}``. Ends at the end of its input, and with its parent.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from types import ModuleType
from typing import Any

from engine.platform.parent_death import die_with_parent


def main() -> None:
    """Bind this process to its parent and its limits, load the scorer, answer until told to end."""
    module_name, parent, memory_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    die_with_parent(parent)  # the end of stdin alone would not reach a worker that is busy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.dup(1)
    os.dup2(2, 1)  # parsers print: stdout belongs to the protocol
    scorer = importlib.import_module(module_name)
    scorer.prepare()
    _say(replies, {"ready": True})
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a parser has to say about a model's text fills no log
    os.dup2(nowhere, 2)
    for line in sys.stdin.buffer:
        _say(replies, _judge(scorer, json.loads(line)))


def _judge(scorer: ModuleType, job: dict[str, str]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        score = scorer.score(job["response"], job["reference"])
        reply = {"value": score.value, "outcome": score.outcome}
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"[:300]}
    return {**reply, "seconds": time.monotonic() - started}


def _say(replies: int, message: dict[str, Any]) -> None:
    os.write(replies, json.dumps(message).encode() + b"\n")  # under PIPE_BUF: written whole


if __name__ == "__main__":
    main()
