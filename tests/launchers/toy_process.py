"""What the toy recipe's processes do."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil

from engine.errors import RunError
from launchers.supervisor import SETTLE_SECONDS


def escape(pid_file: str) -> None:
    """Leave a grandchild in a session of its own, as SGLang's scheduler is; it heeds nothing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(pid_file).write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    time.sleep(600)


def wait_for(file: Path) -> str:
    while not (file.exists() and (text := file.read_text())):
        time.sleep(0.01)
    return text


def wait_for_the_end(pid_file: Path) -> None:
    """Wait until the process that writes ``pid_file`` has ended and the launcher has seen it."""
    pid_file.with_suffix(".awaited").write_text("ready")
    while psutil.pid_exists(int(wait_for(pid_file))):
        time.sleep(0.01)


def follow(pid_file: Path) -> None:
    wait_for_the_end(pid_file)
    os.kill(os.getpid(), signal.SIGKILL)


def act(action: str, argument: str = "") -> None:
    match action:
        case "finish":
            print("the work is done")
        case "sleep":
            time.sleep(600)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("now stubborn", flush=True)
            time.sleep(600)
        case "tidy":
            try:
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                print("at work", flush=True)
                time.sleep(600)
            finally:
                time.sleep(0.2)
                print("tidied up")
        case "escape":
            escape(argument)
        case "chatter":
            for number in range(20_000):
                print("line", number)
            raise SystemExit(7)
        case "fail":
            time.sleep(float(argument or 0))
            print("error: the moon is missing", file=sys.stderr)
            raise SystemExit(1)
        case "fail-first":
            wait_for(Path(argument).with_suffix(".awaited"))
            Path(argument).write_text(str(os.getpid()))
            raise SystemExit(1)
        case "follow":
            follow(Path(argument))
        case "lose-peer":
            wait_for(Path(argument).with_suffix(".awaited"))
            Path(argument).write_text(str(os.getpid()))
            raise RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:4998")
        case "late":
            wait_for_the_end(Path(argument))
            time.sleep(SETTLE_SECONDS + 0.3)
            raise KeyError("layer 7")
        case "told-to-end":
            os.kill(os.getpid(), signal.SIGTERM)
        case "blame":
            wait_for(Path(argument))
            raise RunError("server-0 (http://127.0.0.1:9) died or cannot be reached")
        case "stumble":  # as SGLang's scheduler does; the server itself needs a while to end
            print("[now] Scheduler hit an exception: Traceback (most recent call last):")
            print("RuntimeError: no kernel for this card", flush=True)
            Path(argument).write_text("done")
            time.sleep(600)
        case "leave":
            time.sleep(float(argument or 0))
