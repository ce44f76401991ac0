"""Print the parity table: every layout's losses and updated weights against one process's.

    python -m tools.benchmarks.parity [--help]

Packed batches, three AdamW updates in float32, the SFT and the GRPO update, on gloo. Every tensor
is compared by name. Exit status 1 where a bound is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import RunError, clear_errors
from tools.benchmarks import report
from tools.benchmarks.parity.compare import (
    MAX_LOSS_DIFFERENCE,
    MAX_WEIGHT_DIFFERENCE,
    Difference,
    compare,
)
from tools.benchmarks.parity.layouts import ONE, layouts, name
from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.parity.updates import LOSSES, three_updates
from tools.benchmarks.rank_pool import RankPool

_HEADER = f"{'model':<13}{'layout':<26}{'update':<8}{'loss':>9}{'weights':>10}{'tensors':>9}  worst"


@dataclass(frozen=True)
class Row:
    """One line of the table; ``difference`` is None where the layout failed."""

    model: str
    layout: str
    update: str
    difference: Difference | None

    @property
    def holds(self) -> bool:
        """True if the layout ran, and within the bounds."""
        return self.difference is not None and self.difference.holds


def main() -> int:
    """Compare, print the table, and return the exit status: 0 where all bounds hold."""
    arguments = _parse()
    begun = time.monotonic()
    print(f"bounds: loss {MAX_LOSS_DIFFERENCE}, weights {MAX_WEIGHT_DIFFERENCE} of the largest")
    print(_HEADER)
    rows = []
    with RankPool(arguments.processes) as pool:
        for model in arguments.models:
            for row in table(pool, model, arguments.updates, arguments.layouts):
                _print(row)
                rows.append(row)
    failed = [row for row in rows if not row.holds]
    print(f"{len(rows)} cases, {len(failed)} beyond a bound, {time.monotonic() - begun:.0f} s")
    report.write(arguments, cases=[{**asdict(row), "holds": row.holds} for row in rows])
    return 1 if failed else 0


def table(
    pool: RankPool, model: str, kinds: Sequence[str], only: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield the rows of one model: each layout that the pool has ranks for, each kind of update.

    Args:
        only: names of layouts; empty for all.
    """
    given: dict[str, Any] = {"model": MODELS[model], "kinds": kinds, "options": {}}
    expected = pool.run(three_updates, ONE, **given)[0]
    before = expected["before"].weights
    for layout in layouts(experts="experts" in " ".join(MODELS[model])):
        if layout.processes > pool.ranks or (only and name(layout) not in only):
            continue
        try:
            found = pool.run(three_updates, layout, **given)[0]
        except RunError as error:
            print(error, file=sys.stderr, flush=True)
            yield from (Row(model, name(layout), kind, None) for kind in kinds)
            continue
        for kind in kinds:
            yield Row(model, name(layout), kind, compare(before, expected[kind], found[kind]))


def _print(row: Row) -> None:
    begin = f"{row.model:<13}{row.layout:<26}{row.update:<8}"
    found = row.difference
    if found is None:
        print(f"{begin}FAILED", flush=True)
        return
    mark = "" if row.holds else "  EXCEEDED"
    numbers = f"{found.loss:9.1e}{found.weight:10.1e}{found.tensors:9d}"
    print(f"{begin}{numbers}  {found.where}{mark}", flush=True)


def _parse() -> argparse.Namespace:
    parser = report.command_line(__doc__, "python -m tools.benchmarks.parity")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--updates", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument(
        "--layouts", nargs="+", default=[], metavar="NAME", help='e.g. "tp2 pp2"; default: all'
    )
    parser.add_argument("--processes", type=int, default=8, help="leave out larger layouts")
    return parser.parse_args()


if __name__ == "__main__":
    with clear_errors():
        sys.exit(main())
