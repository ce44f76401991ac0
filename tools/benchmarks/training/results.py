"""Compute the numbers of a row from its steps, and lay it out as a line of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from engine.monitoring.mfu import model_flops_utilisation
from tools.benchmarks.training.profile import Profile

Outcome = Literal["measured", "refused", "out of memory", "failed"]
MIB = 2**20
LONGEST_REASON = 300
"""Characters of what a failed rank said last."""


@dataclass
class Turns:
    """Measurements of one variant over all rounds.

    Attributes:
        precision: ``fp8`` or the dtype, of the matrix products.
        seconds: of every timed step of every round.
        peak_bytes: of the rank that held most, in the round that held most.
        derived_bytes: the same as ``engine.models.memory`` derives it; None without a GPU.
        loss: of the last step, to check that rows computed the same.
        profile: of a step of rank 0, if asked for.
    """

    precision: str = ""
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    derived_bytes: int | None = None
    loss: float | None = None
    microbatches: int = 0
    kernels: dict[str, str] = field(default_factory=dict)
    profile: Profile | None = None
    outcome: Outcome = "measured"
    reason: str | None = None


@dataclass(frozen=True)
class Result:
    """A row of the table; numbers are None where the variant did not run.

    Attributes:
        tokens_per_second: of all processes, padding not counted.
        mfu: None, too, where the device's peak is not known.
        speed: tokens per second as a multiple of the baseline's.
        memory: peak memory as a multiple of the baseline's.
        derived: peak memory as a multiple of what was derived from sizes.
        seconds: every timed step; ``step_seconds`` is their median.
    """

    name: str
    keys: dict[str, Any]
    outcome: Outcome
    reason: str | None
    step_seconds: float | None = None
    tokens_per_second: float | None = None
    tokens_per_second_per_process: float | None = None
    mfu: float | None = None
    peak_bytes: int | None = None
    loss: float | None = None
    microbatches: int | None = None
    speed: float | None = None
    memory: float | None = None
    derived: float | None = None
    seconds: tuple[float, ...] = ()
    kernels: dict[str, str] = field(default_factory=dict)
    profile: Profile | None = None


@dataclass(frozen=True)
class Work:
    """Work of a step, the same for every row, and the device.

    Attributes:
        flops: of one step on all processes: forward and backward, recomputation not counted.
        tokens: of one step on all processes.
        device: see :func:`engine.monitoring.mfu.peak_flops`.
    """

    flops: int
    tokens: int
    processes: int
    device: str


def result(
    name: str,
    keys: dict[str, Any],
    turns: Turns,
    baseline: Turns,
    work: Work,
) -> Result:
    """Return the row of one variant; ``baseline`` are the first row's turns."""
    if turns.outcome != "measured":
        return Result(name, keys, turns.outcome, turns.reason)
    step = median(turns.seconds)
    known = baseline.outcome == "measured"
    return Result(
        name=name,
        keys=keys,
        outcome=turns.outcome,
        reason=None,
        step_seconds=step,
        tokens_per_second=work.tokens / step,
        tokens_per_second_per_process=work.tokens / step / work.processes,
        mfu=model_flops_utilisation(work.flops, step, work.processes, work.device, turns.precision),
        peak_bytes=turns.peak_bytes,
        loss=turns.loss,
        microbatches=turns.microbatches,
        speed=median(baseline.seconds) / step if known else None,
        memory=turns.peak_bytes / baseline.peak_bytes if known else None,
        derived=turns.peak_bytes / turns.derived_bytes if turns.derived_bytes else None,
        seconds=tuple(turns.seconds),
        kernels=turns.kernels,
        profile=turns.profile,
    )


def failure(message: str) -> tuple[Outcome, str]:
    """Return a failed rank's outcome and reason from the traceback of a pool's RunError."""
    last = message.strip().splitlines()[-1].strip()
    return ("out of memory" if "MemoryError" in message else "failed"), last[:LONGEST_REASON]


HEAD = (
    f"{'':22}{'step':>9}{'tokens/s':>11}{'':>8}{'per process':>13}{'MFU':>8}{'peak MiB':>11}{'':>8}"
    f"{'of derived':>12}"
)


def line(row: Result) -> str:
    """Return one line of the table."""
    if row.outcome != "measured":
        return f"{row.name:22}{row.outcome}: {row.reason}"
    mfu = f"{row.mfu:8.1%}" if row.mfu is not None else f"{'-':>8}"
    assert row.tokens_per_second_per_process is not None and row.peak_bytes is not None
    return (
        f"{row.name:22}{row.step_seconds:7.3f} s{row.tokens_per_second:11,.0f}{_times(row.speed)}"
        f"{row.tokens_per_second_per_process:13,.0f}{mfu}{row.peak_bytes / MIB:11,.0f}"
        f"{_times(row.memory)}{_times(row.derived):>12}"
    )


def spread(turns: Turns) -> float:
    """Return the slowest step of the baseline over its fastest, less 1.

    A ratio has to exceed it to be more than noise.
    """
    return max(turns.seconds) / min(turns.seconds) - 1 if turns.seconds else 0.0


def _times(ratio: float | None) -> str:
    return f"{ratio:7.2f}x" if ratio is not None else " " * 8
