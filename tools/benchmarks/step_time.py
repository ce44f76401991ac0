"""Show where a step's time goes in runs that sample, from what they have recorded.

    python -m tools.benchmarks.step_time RUN_DIR [RUN_DIR ...]

Medians over the steps. A step is, in this order: the servers take the weights (push), the sampler
begins (start), servers and rewards work (sampling), the trainer has the rollout (delivery), and it
trains. Between push and delivery the trainer waits: "not sampling" is what it waits beyond
sampling, evaluations aside. Each further run's columns are its seconds and their ratio to the first
run's; compare runs of one quiet machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from engine.errors import RunError, clear_errors
from engine.monitoring import metric_names as names
from engine.monitoring.metrics_file import METRICS_FILE, read_metrics
from tools.benchmarks import report

WAIT = names.SECONDS_PREFIX + "wait_for_rollout"
PARTS = {
    "push": names.SECONDS_PREFIX + "push",
    "wait for rollout": WAIT,
    "  start": names.START_SECONDS,
    "  sampling": names.SAMPLING_SECONDS,
    "  delivery": names.DELIVERY_SECONDS,
    "pack": names.SECONDS_PREFIX + "pack",
    "log-probabilities": names.SECONDS_PREFIX + "log_probabilities",
    "reference": names.SECONDS_PREFIX + "reference",
    "update": names.SECONDS_PREFIX + "update",
    "checkpoint": names.SECONDS_PREFIX + "checkpoint",
    "other": names.SECONDS_PREFIX + "other",
    "step": names.STEP_SECONDS,
}
NOT_SAMPLING = "  not sampling"


@dataclass(frozen=True)
class Split:
    """Median seconds of each part of a run's steps."""

    run: str
    steps: int
    seconds: dict[str, float]


def split(run_dir: Path, first: int, last: int | None) -> Split:
    """Return the split of steps ``first`` to ``last`` (None: all) of a run.

    Raises:
        RunError: the run has no such steps, or does not sample.
    """
    lines = [
        line
        for line in read_metrics(run_dir / METRICS_FILE)
        if line[names.STEP] >= first and (last is None or line[names.STEP] <= last)
        if WAIT in line and names.SAMPLING_SECONDS in line
    ]
    if not lines:
        raise RunError(f"{run_dir} has recorded no step from {first} on that took a rollout")
    seconds = {part: _median(lines, name) for part, name in PARTS.items()}
    waited = [
        line[WAIT] - line[names.SAMPLING_SECONDS]
        for line in lines
        if names.EVALUATION_RESPONSE_LENGTH not in line
    ]
    seconds[NOT_SAMPLING] = median(waited) if waited else None
    known = {part: value for part, value in seconds.items() if value is not None}
    return Split(str(run_dir), len(lines), known)


def _median(lines: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [line[name] for line in lines if name in line]
    return median(values) if values else None


def table(splits: Sequence[Split]) -> str:
    """Return the splits as text, side by side."""
    base = splits[0].seconds
    lines = [f"{one.run}: {one.steps} steps" for one in splits]
    order = list(PARTS)
    order.insert(order.index("  delivery") + 1, NOT_SAMPLING)
    for part in order:
        cells = ""
        for one in splits:
            value = one.seconds.get(part)
            cells += f"{'':10}" if value is None else f"{value:8.3f} s"
            if one is not splits[0]:
                first = base.get(part)
                cells += f"{value / first:6.2f}x" if value is not None and first else f"{'':7}"
        lines.append(f"{part:20}{cells}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write JSON where asked to."""
    parser = report.command_line(__doc__)
    add = parser.add_argument
    add("runs", metavar="RUN_DIR", nargs="+", type=Path, help="folder of a run that samples")
    add("--first", type=int, default=2, help="first step that counts (default: %(default)s)")
    add("--last", type=int, help="last step that counts (default: the run's last)")
    options = parser.parse_args()
    with clear_errors():
        splits = [split(run, options.first, options.last) for run in options.runs]
    print(table(splits))
    report.write(options, results=[asdict(one) for one in splits])


if __name__ == "__main__":
    main()
