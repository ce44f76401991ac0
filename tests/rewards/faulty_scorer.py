"""A scorer for the worker pool with the faults that real verifiers have; imported by the worker."""

from __future__ import annotations

import os
import signal
import time

from engine.rewards.score import RIGHT, WRONG, Score


def prepare() -> None:
    if os.environ.get("FAULTY_PREPARE"):
        raise ImportError("no such verifier")


def score(response: str, reference: str) -> Score:
    match response.split():
        case ["sleep", seconds]:
            time.sleep(float(seconds))
            return RIGHT
        case ["hang"]:  # deaf to everything but SIGKILL
            for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                time.sleep(60)
        case ["compute"]:  # one call into C that holds the interpreter
            return Score(float(3 ** (10**9) > 1), "wrong")
        case ["eat-memory"]:
            hoard = []
            while True:
                hoard.append(bytearray(1 << 24))
        case ["raise"]:
            raise ValueError("cannot judge this")
        case ["recurse"]:
            return score(response, reference)
        case ["exit"]:
            raise SystemExit(0)
        case ["abort"]:
            os.abort()
        case ["print"]:
            print('{"value": 1.0, "outcome": "right", "seconds": 0.0}', flush=True)
            os.write(1, b'{"value": 1.0, "outcome": "right", "seconds": 0.0}\n')
    return RIGHT if response == reference else WRONG
