"""Measure speed, utilisation and memory of a training step: BF16, FP8, one option at a time.

    python -m tools.benchmarks.training [--help]

A step is policy.update: forward and backward passes over packed rows, gradient reduction and the
optimizer. Lengths are drawn as DeepSeek-R1's came to be, log-normal with a long tail. All rows of
the table take turns at the same minibatch with the same model in one run, so that ratios can be
compared; "the baseline's own spread" says how much a ratio has to exceed. A row that this machine
refuses, or whose memory does not suffice, says so and why; the others go on.

Without --model a small mixture of experts is trained, on the CPU in about two minutes. On a GPU:

    python -m tools.benchmarks.training --profile --rows "fp8 blockwise" \\
        --model tools/benchmarks/configs/{qwen3_30b_a3b_12_layers_16_experts,\\
    deepseek_v3_2_layers_32_experts_32k_words}.json \\
        --samples 16 --median 3000 --limit 16384 --tokens-per-microbatch 16384

MFU is against the peak of the row's own precision (engine/monitoring/mfu.py); recomputed
activations do not count as work. Memory is the largest of all ranks': the CUDA allocator's, or on
the CPU the process's peak above what it held before the model was built; "of derived" is
its ratio to what engine/models/memory.py says. --profile adds where the time goes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import check_training_fits_layout
from engine.errors import RunError, clear_errors
from engine.models.memory import training_memory
from engine.monitoring.environment import describe_environment
from engine.platform import accelerator
from tools.benchmarks import report
from tools.benchmarks.rank_pool import RankPool
from tools.benchmarks.training import profile
from tools.benchmarks.training.cases import Case, case_of
from tools.benchmarks.training.results import (
    HEAD,
    Result,
    Turns,
    failure,
    line,
    result,
    spread,
)
from tools.benchmarks.training.steps import Measured, Refused, train_steps
from tools.benchmarks.training.variants import Variant, variants


def main() -> None:
    """Measure one model after the other; print each table, and write JSON, once it is known."""
    options = _parse()
    chosen = _chosen(options.rows)
    layout = LayoutConfig(processes=options.processes, **dict(options.layout))
    cases = [case_of(file, layout, options) for file in options.model or [None]]
    tables: list[dict[str, Any]] = []
    with RankPool(layout.processes) as pool:
        for case in cases:
            print(_heading(case, layout, options), flush=True)
            turns = take_turns(pool, chosen, case, layout, options)
            rows = _rows(chosen, turns, case)
            _print(rows, turns[chosen[0].name])
            tables.append(_table(case, rows))
            report.write(options, **_results(tables, rows[0].kernels, layout))


def _rows(chosen: Sequence[Variant], turns: dict[str, Turns], case: Case) -> list[Result]:
    baseline = turns[chosen[0].name]
    return [
        result(variant.name, dict(variant.keys), turns[variant.name], baseline, case.work)
        for variant in chosen
    ]


def _print(rows: Sequence[Result], baseline: Turns) -> None:
    print("\n".join([HEAD, *map(line, rows)]))
    print(f"the baseline's own spread: {spread(baseline):.1%}")
    for row in rows:
        if row.profile is not None:
            print("\n".join(profile.lines(row.name, row.profile)))
    print(flush=True)


def take_turns(
    pool: RankPool,
    chosen: Sequence[Variant],
    case: Case,
    layout: LayoutConfig,
    options: argparse.Namespace,
) -> dict[str, Turns]:
    """Run every variant once in every round; one that cannot run is left out of later rounds.

    The baseline has a turn before them that does not count: it loads what is loaded late.
    """
    turns = {variant.name: Turns() for variant in chosen}
    _turn(pool, chosen[0], Turns(), case, layout, options, profiled=False)
    for number in range(options.rounds):
        for variant in chosen:
            mine = turns[variant.name]
            if mine.outcome == "measured":
                wanted = options.profile and number == 0
                _turn(pool, variant, mine, case, layout, options, profiled=wanted)
                _progress(f"round {number + 1} of {options.rounds}: {variant.name}", mine)
    return turns


def _turn(
    pool: RankPool,
    variant: Variant,
    turns: Turns,
    case: Case,
    layout: LayoutConfig,
    options: argparse.Namespace,
    *,
    profiled: bool,
) -> None:
    """Run one variant once and add its times and memory to ``turns``."""
    try:
        training = TrainingConfig(
            dtype=options.dtype,
            tokens_per_microbatch=options.tokens_per_microbatch,
            **variant.keys,
        )
        check_training_fits_layout(training, layout)
        turns.precision = training.products
    except (ValidationError, ValueError) as error:
        turns.outcome, turns.reason = "refused", _sentence(error)
        return
    try:
        found: list[Measured | Refused] = pool.run(
            train_steps,
            layout,
            options.row_seconds,
            model=case.model,
            training=training,
            environment=dict(variant.environment),
            lengths=case.lengths,
            warmup=options.warmup,
            steps=options.steps,
            profile=profiled,
        )
    except RunError as error:
        print(error, file=sys.stderr, flush=True)
        turns.outcome, turns.reason = failure(str(error))
        return
    first = found[0]
    if isinstance(first, Refused):
        turns.outcome, turns.reason = "refused", first.reason
        return
    turns.seconds += first.seconds
    if turns.derived_bytes is None and accelerator.has_gpu():
        memory = training_memory(case.model, layout, training, first.row_tokens)
        turns.derived_bytes = memory.total
    turns.profile = turns.profile or first.profile
    turns.loss, turns.microbatches, turns.kernels = (
        first.losses[-1],
        first.microbatches,
        first.kernels,
    )
    peaks = [rank.peak_bytes for rank in found if isinstance(rank, Measured)]
    turns.peak_bytes = max(turns.peak_bytes, *peaks)


def _sentence(error: ValueError) -> str:
    """Return the error's message without pydantic's frame."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
    return str(error)


def _progress(what: str, turns: Turns) -> None:
    how = f"{turns.seconds[-1]:.3f} s" if turns.outcome == "measured" else turns.outcome
    print(f"  {what}: {how}", file=sys.stderr, flush=True)


def _chosen(names: Sequence[str]) -> list[Variant]:
    """Return the variants asked for; the first, which is the baseline, is always among them.

    Raises:
        RunError: there is none of such a name.
    """
    known = variants(accelerator.has_gpu())
    unknown = set(names) - {variant.name for variant in known}
    if unknown:
        listed = ", ".join(variant.name for variant in known)
        raise RunError(f"--rows: expected some of {listed}; found {', '.join(sorted(unknown))}")
    return [known[0], *(v for v in known[1:] if not names or v.name in names)]


def _heading(case: Case, layout: LayoutConfig, options: argparse.Namespace) -> str:
    work = case.work
    return (
        f"{work.device}, {layout.processes} processes, {options.dtype}: {case.name}, "
        f"{case.model['num_hidden_layers']} layers, {case.model['vocab_size']:,} words\n"
        f"a step: {options.samples} samples, {work.tokens:,} tokens, {work.flops / 1e12:,.3f} TFLOP"
    )


def _table(case: Case, rows: Sequence[Result]) -> dict[str, Any]:
    return {
        "model": case.name,
        "step": {"tokens": case.work.tokens, "flops": case.work.flops},
        "rows": [asdict(row) for row in rows],
    }


def _results(
    tables: Sequence[dict[str, Any]], kernels: dict[str, str], layout: LayoutConfig
) -> dict[str, Any]:
    return {
        "benchmark": "training",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe_environment(
            device=accelerator.device_name(), kernels=kernels, layout=layout.model_dump()
        ),
        "models": tables,
    }


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


def _parse() -> argparse.Namespace:
    parser = report.command_line(__doc__, "python -m tools.benchmarks.training")
    gpu = accelerator.has_gpu()
    default = " (default: %(default)s)"
    processes = torch.cuda.device_count() if gpu else min(2, os.cpu_count() or 1)
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        nargs="*",
        metavar="CONFIG",
        help="config.json of each model, a table each; weights are drawn (default: a small one)",
    )
    add("--processes", type=int, default=processes, help=f"one per GPU or core{default}")
    add("--layout", type=_size, nargs="*", default=[], metavar="DIM=N", help="tp=2 ep=2 ...")
    add("--dtype", choices=["float32", "bfloat16"], default="bfloat16" if gpu else "float32")
    add("--rows", nargs="*", default=[], metavar="NAME", help="beside the baseline; default: all")
    add("--samples", type=int, default=16, help=f"of a step, on all processes{default}")
    add("--median", type=float, default=150, help=f"tokens of a sample{default}")
    add("--spread", type=float, default=0.9, help=f"sigma of the logarithm{default}")
    add("--limit", type=int, default=512, help=f"tokens of the longest sample{default}")
    add("--tokens-per-microbatch", type=int, default=1024, help=default.strip())
    add("--warmup", type=int, default=1, help=f"steps before the timed ones{default}")
    add("--steps", type=int, default=2, help=f"timed in each round{default}")
    add("--rounds", type=int, default=2, help=f"turns of each row{default}")
    add("--profile", action="store_true", help="say where the time of each row goes, by kernel")
    add("--row-seconds", type=float, default=240, help=f"no row may take longer{default}")
    add("--seed", type=int, default=0, help=f"of the lengths{default}")
    options = parser.parse_args()
    if options.limit > options.tokens_per_microbatch:
        raise RunError(
            f"--limit: expected at most --tokens-per-microbatch = {options.tokens_per_microbatch}, "
            f"found {options.limit}"
        )
    return options


if __name__ == "__main__":
    with clear_errors():
        main()
