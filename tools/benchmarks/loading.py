"""Measure how fast batches are loaded from a dataset on disk: the plain loader and DALI.

    python -m tools.benchmarks.loading [--help]

A dataset with lengths as in ``tools.benchmarks.packing`` is written to a temporary folder, and both
loaders take turns at the same batches. Two measures: how fast they come when nothing else is done,
and how long a step waits for its batch when it computes meanwhile (a matrix product that keeps the
interpreter free, as a trainer's kernels do). On a machine with a GPU batches end up there.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from engine.config.trainer import LoadingConfig
from engine.data.batch_builder import Packing
from engine.data.batches import BatchReader
from engine.data.loader import Loader, open_loader
from engine.data.order import Shuffled
from engine.data.token_dataset import TokenDataset, write_dataset
from engine.errors import clear_errors
from engine.platform.accelerator import has_gpu
from tools.benchmarks import report
from tools.benchmarks.packing import drawn_lengths

VOCABULARY = 50_000
KINDS: tuple[Literal["plain", "dali"], ...] = ("plain", "dali")


@dataclass(frozen=True)
class Turn:
    """Tokens and times of some batches of one loader."""

    rows: int
    tokens: int
    seconds: float
    waited: float
    """Seconds in which a computing step waited for its batch."""


@dataclass(frozen=True)
class Result:
    """Medians over the turns of one loader."""

    kind: str
    start_seconds: float
    """Until the first batch was there."""
    rows_per_second: float
    tokens_per_second: float
    wait_milliseconds: float
    """Of a step that computes while its successor's batch is made ready."""


def samples(options: argparse.Namespace) -> Iterator[tuple[list[int], list[int]]]:
    """Draw random tokens; a tenth of a sample, at least one token, is its prompt."""
    draw = random.Random(options.seed)
    lengths = drawn_lengths(
        options.samples, options.median, options.spread, options.limit, options.seed
    )
    for length in lengths:
        tokens = [draw.randrange(VOCABULARY) for _ in range(max(2, length))]
        yield tokens[: 1 + length // 10], tokens[1 + length // 10 :]


def take(loader: Loader, steps: int, compute: float) -> Turn:
    """Take batches; with ``compute`` seconds of work after each, and measure the waiting."""
    rows = tokens = 0
    waited = 0.0
    begun = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(loader)
        if has_gpu():
            torch.cuda.synchronize()
        waited += time.perf_counter() - asked
        rows += len(batch.rows)
        tokens += sum(len(row.packed.tokens) for row in batch.rows)
        work(compute)
    return Turn(rows, tokens, time.perf_counter() - begun, waited / steps)


def work(seconds: float) -> None:
    """Multiply matrices for so many seconds."""
    matrix = torch.ones(256, 256)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        matrix @ matrix


def measure(options: argparse.Namespace, folder: Path) -> list[Result]:
    """Write the dataset, open both loaders, and let them take turns."""
    write_dataset(folder / "dataset", samples(options), VOCABULARY)
    dataset = TokenDataset(folder / "dataset")
    reader = BatchReader(
        dataset,
        Shuffled(len(dataset), options.seed),
        samples=options.samples_per_step,
        packing=Packing(0, options.ranks, options.tokens_per_microbatch),
    )
    device = torch.device("cuda", 0) if has_gpu() else torch.device("cpu")
    results = []
    turns: dict[str, list[tuple[Turn, Turn]]] = {kind: [] for kind in KINDS}
    start: dict[str, float] = {}
    for repeat in range(options.repeats + 1):
        for kind in KINDS:
            begun = time.perf_counter()
            config = LoadingConfig(loader=kind, prefetch=options.prefetch)
            with open_loader(config, reader, 0, device) as loader:
                next(loader)
                start.setdefault(kind, time.perf_counter() - begun)
                alone = take(loader, options.steps, compute=0)
                computing = take(loader, options.steps, options.compute_milliseconds / 1e3)
            turns[kind] += [(alone, computing)] if repeat else []  # the first is warm-up
    for kind in KINDS:
        results.append(
            Result(
                kind=kind,
                start_seconds=start[kind],
                rows_per_second=median(alone.rows / alone.seconds for alone, _ in turns[kind]),
                tokens_per_second=median(alone.tokens / alone.seconds for alone, _ in turns[kind]),
                wait_milliseconds=median(with_work.waited for _, with_work in turns[kind]) * 1e3,
            )
        )
    return results


def table(results: Sequence[Result]) -> str:
    """Return the results as text; ratios are against the first."""
    lines = [f"{'':8}{'start':>9}{'rows':>15}{'':>8}{'tokens':>18}{'a step waits':>16}"]
    for r in results:
        ratio = r.rows_per_second / results[0].rows_per_second
        lines.append(
            f"{r.kind:8}{r.start_seconds:7.2f} s{r.rows_per_second:9.0f} row/s{ratio:7.2f}x"
            f"{r.tokens_per_second / 1e6:10.2f} Mtok/s{r.wait_milliseconds:13.2f} ms"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write JSON where asked to."""
    parser = report.command_line(__doc__)
    add = parser.add_argument
    add("--samples", type=int, default=4000, help="of the dataset (default: %(default)s)")
    add("--median", type=float, default=600, help="tokens (default: %(default)s)")
    add("--spread", type=float, default=0.9, help="sigma of the logarithm (default: %(default)s)")
    add("--limit", type=int, default=4096, help="longest sample (default: %(default)s)")
    add("--samples-per-step", type=int, default=64, help="on all ranks (default: %(default)s)")
    add("--ranks", type=int, default=2, help="data-parallel size (default: %(default)s)")
    add("--tokens-per-microbatch", type=int, default=4096, help="(default: %(default)s)")
    add("--prefetch", type=int, default=2, help="batches ahead (default: %(default)s)")
    add("--compute-milliseconds", type=float, default=30, help="of a step (default: %(default)s)")
    add("--steps", type=int, default=50, help="of a turn (default: %(default)s)")
    add("--repeats", type=int, default=3, help="turns of each loader (default: %(default)s)")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    with clear_errors(), tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    print(table(results))
    device = "gpu" if has_gpu() else "cpu"
    report.write(options, device=device, results=[asdict(result) for result in results])


if __name__ == "__main__":
    main()
