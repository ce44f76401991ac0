"""Print a line per step to the terminal, and a progress bar where there is one."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

from engine.monitoring import metric_names as names
from engine.monitoring.summary import EvaluationResult, compare
from engine.platform.closing import Closing

RECENT_LINES = 10


@dataclass(frozen=True)
class Column:
    """One number of the line: ``accuracy 0.54``."""

    label: str
    name: str  # of the metric
    format: str  # with a width, so that lines are aligned


REINFORCEMENT = (
    Column("reward", names.REWARD_MEAN, "5.2f"),
    Column("length", names.RESPONSE_LENGTH, "5.0f"),
    Column("kl", names.KL, "6.4f"),
)
LOSS = Column("loss", names.LOSS, "6.4f")
SPEED = Column("", names.TOKENS_PER_SECOND, "7,.0f")
UTILISATION = Column("MFU", names.MFU_UPDATE, "5.1%")
"""Only where it is known: without a GPU the line has no such place."""


def columns_for(metrics: Collection[str]) -> list[Column]:
    """Return what the line of a step says, of the metrics that occur in a run.

    Where there are rewards: the mean value of each, their weighted sum, length and KL; otherwise
    the loss. A reward in a module of one's own is called by the last part of its name.
    """
    if names.REWARD_MEAN not in metrics:
        return [LOSS] if LOSS.name in metrics else []
    rewards = names.reward_names([dict.fromkeys(metrics)])
    columns = [
        *(Column(name.rpartition(".")[2], names.reward(name), "4.2f") for name in rewards),
        *REINFORCEMENT,
    ]
    return [column for column in columns if column.name in metrics]


class Console(Closing):
    """Prints a line per step; on a terminal a bar with the remaining time stays below the lines.

    ::

        step 12/90  accuracy 0.54  reward  1.32  length    36  kl 0.0021   1.9 s/step ...
    """

    def __init__(
        self,
        total: int,
        *,
        first_step: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock of the first step.

        Args:
            total: steps of the run.
            first_step: the step that comes first in this process.
            stream: standard output unless told otherwise; a bar is drawn where it is a terminal.
            clock: seconds, never going back.
        """
        self._total = total
        self._metrics: dict[str, None] = {}  # that have occurred so far
        self._stream = stream or sys.stdout
        self._clock = clock
        self._marks = deque([(first_step, clock())], maxlen=RECENT_LINES + 1)
        self._bar = tqdm(
            total=total,
            initial=first_step,
            file=self._stream,
            disable=not self._stream.isatty(),
            unit="step",
            dynamic_ncols=True,
            leave=False,
        )

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Print the line of the step that has just ended; steps may be left out.

        A metric that earlier steps had and this one lacks is shown as ``-``. A replayed step has
        no speed, and does not count for the time that remains.
        """
        self._metrics |= dict.fromkeys(scalars)
        done = step + 1
        if names.REPLAYED in scalars:  # as fast as it is, it tells nothing of the steps to come
            self._marks.clear()
        self._marks.append((done, self._clock()))
        width = len(str(self._total))
        parts = [
            f"step {done:>{width}}/{self._total}",
            *(f"{column.label} {_shown(column, scalars)}" for column in columns_for(self._metrics)),
            *(self._speeds(done, scalars) if len(self._marks) > 1 else ["replayed"]),
        ]
        self._bar.update(done - self._bar.n)
        tqdm.write("  ".join(parts), file=self._stream)
        self._stream.flush()

    def _speeds(self, done: int, scalars: Mapping[str, float]) -> list[str]:
        """Return what the line says of the last step's time, and of the time that remains."""
        latest = _pace(self._marks[-2], self._marks[-1])
        recent = _pace(self._marks[0], self._marks[-1])
        return [
            f"{latest:5.2f} s/step",
            f"{_shown(SPEED, scalars)} tok/s",
            *([f"MFU {_shown(UTILISATION, scalars)}"] if UTILISATION.name in scalars else []),
            f"ETA {duration((self._total - done) * recent)}",
        ]

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def comparison_table(base: EvaluationResult | None, final: EvaluationResult) -> list[str]:
    """Return the lines that say, at the end of a run, what its evaluations found.

    Without a ``base`` to compare with there are none.
    """
    if base is None:
        return []
    rows = [("", "base", "final")]
    for line in compare(base, final):
        rows.append((f"{line.name}, {line.what}".removeprefix(", "), line.base, line.final))
    width = max(len(what) for what, _, _ in rows)
    title = f"held-out problems: {final.problems}, answers: {final.samples}"
    return ["", title, *(f"  {what:<{width}}{one:>8}{two:>8}" for what, one, two in rows)]


def _pace(earlier: tuple[int, float], later: tuple[int, float]) -> float:
    """Seconds per step between two marks (steps done, clock)."""
    return (later[1] - earlier[1]) / (later[0] - earlier[0])


def duration(seconds: float) -> str:
    """Return ``45s``, ``2m31s`` or ``1h02m``, rounded to what is shown."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}m"


def _shown(column: Column, scalars: Mapping[str, float]) -> str:
    value = scalars.get(column.name)
    if value is None:
        return "-".rjust(len(f"{0.0:{column.format}}"))
    return f"{value:{column.format}}"
