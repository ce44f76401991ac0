"""Measure fill of packed rows and balance of ranks: the planner against packing in order.

    python -m tools.benchmarks.packing [--help]

Lengths are drawn as DeepSeek-R1-Zero's came to be: a log-normal with a long tail, cut at the limit
(R1: 32,768 tokens, 512 samples an update). Nothing is timed but the planning itself; the rest is
counted, so every machine prints the same.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log

from engine.data.minibatches import Minibatch, Row, plan_minibatches
from engine.errors import clear_errors
from tools.benchmarks import report


@dataclass(frozen=True)
class Result:
    """Fill and balance as shares of 1, over all minibatches of the rollout."""

    ranks: int
    kind: str
    rows: int
    """Microbatches of a rank."""
    fill: float
    """Tokens of all rows / what all rows could hold."""
    balance: float
    """Tokens of the mean rank / of the fullest one."""
    in_step: float
    """Tokens of the mean rank / of every microbatch's fullest row: what expert-parallel ranks,
    which meet in every layer, do not spend waiting."""
    plan_milliseconds: float
    """For one rollout, on one rank."""


def drawn_lengths(count: int, median: float, spread: float, limit: int, seed: int) -> list[int]:
    """Draw log-normal lengths (``spread``: sigma of the logarithm), from 1 to ``limit`` tokens."""
    draw = random.Random(seed)
    return [
        min(limit, max(1, round(draw.lognormvariate(log(median), spread)))) for _ in range(count)
    ]


def in_order(
    lengths: Sequence[int], minibatches: int, ranks: int, capacity: int
) -> list[Minibatch]:
    """Plan naively: samples in order, dealt to ranks in turn, a new row when one is full."""
    plan = []
    size = len(lengths) // minibatches
    for part in range(minibatches):
        samples = range(part * size, (part + 1) * size)
        packed = [_next_fit(samples[rank::ranks], lengths, capacity) for rank in range(ranks)]
        count = max(map(len, packed))
        plan.append(Minibatch(tuple((*rows, *[()] * (count - len(rows))) for rows in packed)))
    return plan


def _next_fit(samples: Sequence[int], lengths: Sequence[int], capacity: int) -> tuple[Row, ...]:
    rows: list[list[int]] = [[]]
    room = capacity
    for sample in samples:
        if lengths[sample] > room:
            rows.append([])
            room = capacity
        rows[-1].append(sample)
        room -= lengths[sample]
    return tuple(map(tuple, rows))


def evaluate(
    kind: str, plan: Sequence[Minibatch], lengths: Sequence[int], capacity: int, seconds: float
) -> Result:
    """Return the fill and balance of a plan."""
    ranks = len(plan[0].rows)
    rows = total = fullest_rank = fullest_rows = 0
    for minibatch in plan:
        fill = [[sum(lengths[i] for i in row) for row in rank] for rank in minibatch.rows]
        rows += len(fill[0])
        total += sum(map(sum, fill))
        fullest_rank += max(map(sum, fill))
        fullest_rows += sum(map(max, zip(*fill, strict=True)))
    return Result(
        ranks=ranks,
        kind=kind,
        rows=rows,
        fill=total / (rows * ranks * capacity),
        balance=total / ranks / fullest_rank,
        in_step=total / ranks / fullest_rows,
        plan_milliseconds=seconds * 1e3,
    )


def measure(options: argparse.Namespace) -> list[Result]:
    """Plan one rollout both ways for every number of ranks."""
    capacity = options.tokens_per_microbatch
    lengths = drawn_lengths(
        options.samples, options.median, options.spread, options.limit, options.seed
    )
    results = []
    for ranks in options.ranks:
        begun = time.perf_counter()
        naive = in_order(lengths, options.minibatches, ranks, capacity)
        between = time.perf_counter()
        ours = plan_minibatches(lengths, options.minibatches, ranks, capacity, options.seed)
        ended = time.perf_counter()
        results.append(evaluate("in order", naive, lengths, capacity, between - begun))
        results.append(evaluate("planned", ours, lengths, capacity, ended - between))
    return results


def table(results: Sequence[Result]) -> str:
    """Return the results as text."""
    lines = [f"{'ranks':>5}  {'':10}{'rows':>6}{'fill':>8}{'balance':>9}{'in step':>9}{'plan':>10}"]
    lines += [
        f"{r.ranks:5}  {r.kind:10}{r.rows:6}{r.fill:8.1%}{r.balance:9.1%}{r.in_step:9.1%}"
        f"{r.plan_milliseconds:7.0f} ms"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    """Plan, print the table, and write JSON where asked to."""
    parser = report.command_line(__doc__)
    add = parser.add_argument
    add("--samples", type=int, default=8192, help="of the rollout (default: %(default)s)")
    add("--minibatches", type=int, default=16, help="(default: %(default)s)")
    add("--ranks", type=int, nargs="+", default=[1, 8, 32, 64], help="data-parallel sizes")
    add("--median", type=float, default=6000, help="tokens (default: %(default)s)")
    add("--spread", type=float, default=0.9, help="sigma of the logarithm (default: %(default)s)")
    add("--limit", type=int, default=32768, help="longest sample (default: %(default)s)")
    add("--tokens-per-microbatch", type=int, default=32768, help="(default: %(default)s)")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    with clear_errors():
        results = measure(options)
    print(table(results))
    report.write(options, results=[asdict(result) for result in results])


if __name__ == "__main__":
    main()
