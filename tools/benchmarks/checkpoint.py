"""Measure how long a save blocks training: asynchronous, synchronous, and no save at all.

    python -m tools.benchmarks.checkpoint [--help]

Real trainer ranks train a mixture of experts. The three ways take turns; in each turn there is one
save after the first update, and training goes on. ``blocked`` is the time in which training stood
still for it, ``loop`` the whole turn, ``whole`` how long until the checkpoint was on the disk.
With fewer cores than ranks and their writers the writing slows the updates down: ``loop`` shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from engine.config.layout import LayoutConfig
from tools.benchmarks import report
from tools.benchmarks.checkpoint_saves import WAYS, Turn, take_turns
from tools.benchmarks.rank_pool import RankPool

MIB = 2**20


@dataclass(frozen=True)
class Result:
    """Medians of one way's turns; seconds."""

    way: str
    blocked: float
    loop: float
    whole: float
    mib: float
    turns: int


def summary(way: str, turns: Sequence[Turn]) -> Result:
    """Return the medians of one way's turns."""
    mine = [turn for turn in turns if turn.way == way]
    return Result(
        way,
        blocked=median(turn.blocked_seconds for turn in mine),
        loop=median(turn.loop_seconds for turn in mine),
        whole=median(turn.whole_seconds for turn in mine),
        mib=mine[0].bytes / MIB,
        turns=len(mine),
    )


def ratios(results: dict[str, Result]) -> dict[str, float]:
    """Return the ratios of the ways' medians."""
    none, synchronous, asynchronous = (results[way] for way in WAYS)
    return {
        "blocked, synchronous / asynchronous": synchronous.blocked / asynchronous.blocked,
        "loop, synchronous / no save": synchronous.loop / none.loop,
        "loop, asynchronous / no save": asynchronous.loop / none.loop,
    }


def model_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the config of a Qwen3-MoE with the wanted sizes."""
    return {
        "model_type": "qwen3_moe",
        "vocab_size": 4096,
        "hidden_size": options.hidden,
        "intermediate_size": 2 * options.hidden,
        "num_hidden_layers": options.layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": options.hidden // 8,
        "num_experts": options.experts,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": options.hidden,
        "norm_topk_prob": True,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }


def options_of_command_line() -> argparse.Namespace:
    """Read the arguments."""
    parser = report.command_line(__doc__)
    add = parser.add_argument
    add("--hidden", type=int, default=256, help="(default: %(default)s)")
    add("--layers", type=int, default=4, help="(default: %(default)s)")
    add("--experts", type=int, default=16, help="(default: %(default)s)")
    add("--updates", type=int, default=8, help="of one turn (default: %(default)s)")
    add("--tokens", type=int, default=512, help="of an update and rank (default: %(default)s)")
    add("--turns", type=int, default=5, help="(default: %(default)s)")
    add("--folder", type=Path, help="on the file system to be measured (default: a temporary one)")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write JSON where asked to."""
    options = options_of_command_line()
    layout = LayoutConfig(processes=2, ep=2)
    with RankPool(layout.processes) as pool, TemporaryDirectory(dir=options.folder) as folder:
        turns: list[Turn] = pool.run(
            take_turns,
            layout,
            limit_seconds=3600,
            model=model_of(options),
            folder=Path(folder),
            updates=options.updates,
            tokens=options.tokens,
            turns=options.turns,
        )[0]
    results = {way: summary(way, turns) for way in WAYS}
    print(f"{'':14}{'blocked s':>12}{'loop s':>12}{'whole s':>12}{'MiB':>10}")
    for result in results.values():
        times = (result.blocked, result.loop, result.whole)
        print(f"{result.way:14}{''.join(f'{t:12.3f}' for t in times)}{result.mib:10.0f}")
    for name, ratio in ratios(results).items():
        print(f"{name}: {ratio:.2f}")
    found = [asdict(result) for result in results.values()]
    report.write(options, results=found, ratios=ratios(results))


if __name__ == "__main__":
    main()
