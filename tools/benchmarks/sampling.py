"""Measure how fast the CPU servers sample: ours, and unmodified SGLang (``torch_native``).

    python -m tools.benchmarks.sampling [--help]

Both kinds of servers stay up and take turns at the same rollouts, so that whatever else the machine
does affects both. Wall time is what a run waits for; CPU time per token is the better measure on a
machine that is not idle.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from engine.errors import clear_errors
from engine.platform.sglang_cpu.plugin import ATTENTION_BACKEND
from engine.servers.client import Sampling, connect
from tools.benchmarks import report
from tools.benchmarks.local_servers import (
    LocalServer,
    RunningServer,
    local_server,
    running,
    urls,
)
from tools.benchmarks.tiny_model import VOCABULARY, tiny_qwen3_moe

START_SECONDS = 300.0
ROLLOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Rollout:
    """Tokens and times of one rollout of all prompts by one kind of servers."""

    tokens: int
    seconds: float
    cpu_seconds: float
    """Of all processes of the servers."""


@dataclass(frozen=True)
class Result:
    """Medians over the rollouts of one kind of servers."""

    kind: str
    start_cpu_seconds: float
    """CPU time until a server was healthy."""
    tokens_per_second: float
    cpu_microseconds_per_token: float


def sglang_as_it_comes(server: LocalServer) -> LocalServer:
    """Return the server without our plug-in: SGLang's attention, experts, spawning."""
    command = tuple("torch_native" if a == ATTENTION_BACKEND else a for a in server.command)
    return replace(server, command=command, env={**server.env, "SGLANG_PLUGINS": "none"})


def prompts(count: int, length: int, seed: int) -> list[list[int]]:
    """Draw token ids; lengths vary by a third around ``length``."""
    draw = random.Random(seed)
    lengths = [max(1, round(length * draw.uniform(2 / 3, 4 / 3))) for _ in range(count)]
    return [[draw.randrange(2, VOCABULARY) for _ in range(n)] for n in lengths]


async def rollout(
    started: Sequence[RunningServer], asked: list[list[int]], sampling: Sampling
) -> Rollout:
    """Sample a group for every prompt, all asked for at once."""
    async with connect(urls(started), ROLLOUT_SECONDS) as client:
        cpu, begun = cpu_seconds(started), time.monotonic()
        groups = await asyncio.gather(*(client.generate(p, sampling) for p in asked))
        seconds = time.monotonic() - begun
    tokens = sum(len(sample.tokens) for group in groups for sample in group)
    return Rollout(tokens, seconds, cpu_seconds(started) - cpu)


def cpu_seconds(started: Sequence[RunningServer]) -> float:
    """Return the CPU time that all processes of the servers have used so far."""
    families = [p for s in started for p in (s.process, *s.process.children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in families)


def measure(options: argparse.Namespace, folder: Path) -> list[Result]:
    """Start both kinds of servers and let them take turns; the first rollout of each is warm-up."""
    model = options.model or tiny_qwen3_moe(folder / "model", seed=0)
    sampling = Sampling(
        n=options.group_size,
        max_new_tokens=options.max_new_tokens,
        temperature=1.0,
        stop_token_ids=(),
    )
    ours, native = (
        [
            local_server(model, f"server-{i}", max_total_tokens=options.max_total_tokens, seed=i)
            for i in range(options.servers)
        ]
        for _ in range(2)
    )
    kinds = {
        "torch_native": [sglang_as_it_comes(server) for server in native],
        ATTENTION_BACKEND: ours,
    }
    rollouts: dict[str, list[Rollout]] = {kind: [] for kind in kinds}
    start_cpu: dict[str, float] = {}
    with ExitStack() as stack:
        started = {}
        for kind, described in kinds.items():
            (folder / kind).mkdir()
            started[kind] = stack.enter_context(running(described, folder / kind, START_SECONDS))
            start_cpu[kind] = cpu_seconds(started[kind]) / options.servers
        for turn in range(options.repeats + 1):
            asked = prompts(options.prompts, options.prompt_length, seed=turn)
            for kind in kinds:
                done = asyncio.run(rollout(started[kind], asked, sampling))
                rollouts[kind] += [done] if turn else []
    return [
        Result(
            kind=kind,
            start_cpu_seconds=start_cpu[kind],
            tokens_per_second=median(r.tokens / r.seconds for r in rollouts[kind]),
            cpu_microseconds_per_token=median(r.cpu_seconds / r.tokens for r in rollouts[kind])
            * 1e6,
        )
        for kind in kinds
    ]


def table(results: Sequence[Result]) -> str:
    """Return the results as text; ratios are against the first."""
    base = results[0]
    lines = [f"{'':14}{'start':>12}{'sampling':>16}{'':>8}{'cost':>16}{'':>8}"]
    for r in results:
        faster = r.tokens_per_second / base.tokens_per_second
        cheaper = base.cpu_microseconds_per_token / r.cpu_microseconds_per_token
        lines.append(
            f"{r.kind:14}{r.start_cpu_seconds:8.1f} s CPU{r.tokens_per_second:10.0f} tok/s"
            f"{faster:7.2f}x{r.cpu_microseconds_per_token:9.0f} us/tok{cheaper:7.2f}x"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write JSON where asked to."""
    parser = report.command_line(__doc__)
    add = parser.add_argument
    add("--model", type=Path, help="Hugging Face folder (default: a random 0.2M-parameter MoE)")
    add("--servers", type=int, default=2, help="servers of each kind (default: %(default)s)")
    add("--prompts", type=int, default=16, help="prompts of a rollout (default: %(default)s)")
    add("--group-size", type=int, default=16, help="samples per prompt (default: %(default)s)")
    add("--prompt-length", type=int, default=14, help="tokens, on average (default: %(default)s)")
    add("--max-new-tokens", type=int, default=60, help="(default: %(default)s)")
    add("--max-total-tokens", type=int, default=65536, help="KV cache (default: %(default)s)")
    add("--repeats", type=int, default=8, help="rollouts of each kind (default: %(default)s)")
    options = parser.parse_args()
    with clear_errors(), tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    print(table(results))
    report.write(options, results=[asdict(result) for result in results])


if __name__ == "__main__":
    main()
