"""Each operation that our layers take from Transformer Engine by itself, then our layers, on a GPU.

    python tests/gpu/bundle/smoke.py [--json FILE] [CHECK ...]

The order is one in which a failure explains the next ones; each failure is told and the rest goes
on. A check compares with plain torch in float32 and says relative distances. Exit status: 1 if a
check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # layer_cases and wide_models

import smoke_operations  # noqa: F401  (registers its checks: these come first)
import smoke_passes  # noqa: F401
import torch
from smoke_checks import CHECKS

from engine.platform import accelerator


@dataclass(frozen=True)
class Outcome:
    """What one check found; ``said`` is its numbers, or why it failed."""

    check: str
    passed: bool
    said: str
    seconds: float


def outcomes(names: list[str]) -> Iterator[Outcome]:
    """Run the checks in a process of their own; what ends or spoils it costs one check only.

    This process never touches the GPU, so that it can fork another one.
    """
    context, waiting = get_context("fork"), list(names)
    while waiting:
        line, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(waiting, theirs))
        begun = time.perf_counter()
        process.start()
        theirs.close()
        while waiting:
            try:
                yield line.recv()
            except EOFError:
                break
            waiting.pop(0)
            begun = time.perf_counter()
        process.join()
        if waiting and process.exitcode:
            why = f"its process ended with {process.exitcode}"
            yield Outcome(waiting.pop(0), False, why, time.perf_counter() - begun)


def work(names: list[str], line: Connection) -> None:
    """Run checks until an error (an illegal access, say) has made CUDA unusable in this process."""
    accelerator.has_transformer_engine()  # imports it with what the engine makes ready for it
    for name in names:
        line.send(run(name))
        if device_is_lost():
            return


def run(name: str) -> Outcome:
    """Run one check here."""
    begun = time.perf_counter()
    try:
        said, passed = CHECKS[name](), True
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # an error of a kernel belongs to the check that started it
    except Exception:
        said, passed = traceback.format_exc(limit=-6).strip(), False
    return Outcome(name, passed, said, time.perf_counter() - begun)


def device_is_lost() -> bool:
    """Whether there is a GPU, but not for this process any more."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main() -> int:
    """Print what each check found as soon as it is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("check", nargs="*", help="default: all of them")
    parser.add_argument("--json", type=Path, help="the same for machines, kept up to date")
    options = parser.parse_args()
    if unknown := set(options.check) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    found = []
    for one in outcomes(options.check or list(CHECKS)):
        found.append(one)
        verdict = "ok  " if one.passed else "FAIL"
        print(f"{verdict}  {one.check}: {one.said} ({one.seconds:.1f} s)", flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    failed = [one for one in found if not one.passed]
    print(f"smoke: {len(found) - len(failed)} of {len(found)} passed")
    for one in failed:
        print(f"FAIL  {one.check}: {one.said.splitlines()[-1][:150]}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
