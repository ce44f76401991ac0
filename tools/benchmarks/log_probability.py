"""Measure memory and speed of log-probabilities: chunked from hidden states, and all logits.

    python -m tools.benchmarks.log_probability [--help]

``naive`` is the definition in torch: the logits of all tokens in float32, log_softmax, gather,
entropy, and autograd backwards. ``chunked`` is engine/training/heads/log_probability.py. Both get
the same hidden states and output layer on one device. ``forward`` is without gradients, as for the
old and the reference log-probabilities; ``forward + backward`` is an update's share.

Memory is the most that a pass holds above its inputs, the gradients of both inputs included. On
CUDA the allocator counts it. On the CPU each code runs in a fresh process, and the kernel counts:
the peak of resident memory (VmHWM) less what was resident once the inputs existed. That is
real memory, scratch space of the matrix library included, exact to some MiB where a chunk's logits
take more than 32 MiB (smaller blocks the C library keeps, so they count up to twice); the first
pass decides, which finds none of them. The two codes take turns, so that whatever else the machine
does affects both. The defaults take two to four minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from statistics import median

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from engine.training.heads.log_probability import log_probability_and_entropy
from tools.benchmarks import report
from tools.benchmarks.memory import peak, resident, start_peak

LogProbabilities = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
PASSES = ("forward", "forward + backward")
CODES = ("naive", "chunked")
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One row and one output layer."""

    tokens: int
    hidden: int
    vocabulary: int
    chunk_tokens: int
    dtype: str
    device: str


@dataclass(frozen=True)
class Once:
    """One pass of one code."""

    seconds: float
    peak_bytes: int
    """Above the inputs."""


@dataclass(frozen=True)
class Result:
    """All passes of one kind by one code over one row."""

    code: str
    passes: str
    tokens: int
    peak_bytes: int
    peak_bytes_per_token: float
    tokens_per_second: float
    """Median."""
    repeats: int


def naive(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies [T] from [T, h], [V, h], [T], all logits at once."""
    log_p = torch.log_softmax((hidden @ weight.t()).float(), -1)
    chosen = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return chosen, -(log_p.exp() * log_p).sum(-1)


def chunked(chunk_tokens: int) -> LogProbabilities:
    """Return the engine's code, in a group of this process alone."""

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        group = dist.group.WORLD
        return log_probability_and_entropy(hidden, weight, targets, 1.0, group, chunk_tokens)

    return compute


def run_once(case: Case, code: str, passes: str) -> Once:
    """Make the inputs and run one pass; in a process that runs nothing but this ``code``."""
    if not dist.is_initialized():
        backend = "nccl" if case.device == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        run_once(
            Case(8, 8, 8, 8, case.dtype, case.device), code, PASSES[1]
        )  # loads what loads late
    compute = naive if code == "naive" else chunked(case.chunk_tokens)
    inputs = make_inputs(case, gradients=passes != "forward")
    start_peak(case.device)
    before, begun = resident(case.device), time.perf_counter()
    with torch.set_grad_enabled(passes != "forward"):
        chosen, entropy = compute(*inputs)
    if passes != "forward":
        (chosen - 0.01 * entropy).mean().backward()
    if case.device == "cuda":
        torch.cuda.synchronize()
    return Once(time.perf_counter() - begun, peak(case.device) - before)


def make_inputs(case: Case, *, gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a row and an output layer whose logits spread as a trained model's do."""
    generator = torch.Generator(case.device).manual_seed(0)
    dtype = getattr(torch, case.dtype)

    def normal(rows: int, deviation: float) -> Tensor:
        made = torch.empty(rows, case.hidden, dtype=dtype, device=case.device)
        return made.normal_(0, deviation, generator=generator).requires_grad_(gradients)

    targets = torch.empty(case.tokens, dtype=torch.int64, device=case.device)
    targets.random_(case.vocabulary, generator=generator)
    return normal(case.tokens, 1.0), normal(case.vocabulary, 2 * case.hidden**-0.5), targets


def measure(options: argparse.Namespace) -> Iterator[dict[str, Result]]:
    """Yield results by code for every size and kind of passes.

    The naive code runs only where its memory is expected to suffice.
    """
    naive_needs = 5 * 4 * options.vocabulary  # bytes per token, until they have been measured
    for tokens in sorted(options.tokens):
        case = Case(
            tokens,
            options.hidden,
            options.vocabulary,
            options.chunk_tokens,
            options.dtype,
            options.device,
        )
        expected = naive_needs * tokens / MIB
        fits = expected <= options.memory_gib * 1024
        if not fits:
            print(f"{tokens:8} naive is left out: {expected:,.0f} MiB expected", flush=True)
        for results in take_turns(case, CODES if fits else CODES[1:], options):
            if "naive" in results:
                naive_needs = results["naive"].peak_bytes_per_token
            yield results


def take_turns(
    case: Case, codes: Sequence[str], options: argparse.Namespace
) -> Iterator[dict[str, Result]]:
    """Run both kinds of passes in fresh processes, one per code, in turn."""
    with ExitStack() as stack:
        processes = {
            code: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for code in codes
        }
        for passes in PASSES:
            runs: dict[str, list[Once]] = {code: [] for code in codes}
            started = time.monotonic()
            for turn in range(options.repeats):
                if turn and time.monotonic() - started > options.seconds:
                    break
                for code in codes:
                    once = processes[code].submit(run_once, case, code, passes).result()
                    runs[code].append(once)
            yield {code: summary(case, code, passes, runs[code]) for code in codes}


def summary(case: Case, code: str, passes: str, runs: Sequence[Once]) -> Result:
    """Return the median speed, and the memory of the first pass."""
    return Result(
        code=code,
        passes=passes,
        tokens=case.tokens,
        peak_bytes=runs[0].peak_bytes,
        peak_bytes_per_token=runs[0].peak_bytes / case.tokens,
        tokens_per_second=median(case.tokens / run.seconds for run in runs),
        repeats=len(runs),
    )


HEAD = f"""{"":28}{"peak MiB":>20}{"":8}{"KiB per token":>20}{"tokens/s":>20}
{"tokens":>8} {"":19}{"naive":>10}{"chunked":>10}{"less":>8}{"naive":>10}{"chunked":>10}\
{"naive":>10}{"chunked":>10}{"faster":>8}"""


def line(results: dict[str, Result]) -> str:
    """Return one size as a line of the table; ratios are in favour of the chunked code."""
    ours, base = results["chunked"], results.get("naive")
    columns = [
        [result.peak_bytes / MIB, result.peak_bytes_per_token / 1024, result.tokens_per_second]
        for result in (base, ours)
        if result
    ]
    cells = [[f"{number:10,.0f}" for number in column] for column in columns]
    theirs, mine = cells if base else [[f"{'-':>10}"] * 3, cells[0]]
    less = f"{base.peak_bytes / ours.peak_bytes:7.1f}x" if base else " " * 8
    faster = f"{ours.tokens_per_second / base.tokens_per_second:7.2f}x" if base else ""
    memory, per_token, speed = (a + b for a, b in zip(theirs, mine, strict=True))
    return f"{ours.tokens:8} {ours.passes:19}{memory}{less}{per_token}{speed}{faster}"


def options_of_command_line() -> argparse.Namespace:
    """Read the arguments."""
    parser = report.command_line(__doc__)
    gpu = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    add = parser.add_argument
    add("--tokens", type=int, nargs="+", default=[1024, 4096, 32768], help="(default: %(default)s)")
    add("--hidden", type=int, default=1024, help="(default: %(default)s)")
    add("--vocabulary", type=int, default=32768, help="Qwen: 151936 (default: %(default)s)")
    add("--chunk-tokens", type=int, default=1024, help="(default: %(default)s)")
    add("--dtype", choices=["float32", "bfloat16"], default="bfloat16" if gpu else "float32")
    add("--device", choices=["cpu", "cuda"], default="cuda" if gpu else "cpu")
    add("--repeats", type=int, default=3, help="passes of each kind (default: %(default)s)")
    add("--seconds", type=float, default=15.0, help="no further turn after (default: %(default)s)")
    add(
        "--memory-gib",
        type=float,
        default=round(free / 2**31, 1),
        help="sizes where naive would need more are left out (default: half of what is free)",
    )
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write JSON where asked to."""
    options = options_of_command_line()
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{device}, {torch.get_num_threads()} threads, {options.dtype}: h {options.hidden}, "
        f"vocabulary {options.vocabulary}, chunks of {options.chunk_tokens} tokens\n{HEAD}",
        flush=True,
    )
    found: list[Result] = []
    for results in measure(options):
        print(line(results), flush=True)
        found += results.values()
    machine = {"device": device, "threads": torch.get_num_threads()}
    report.write(options, machine=machine, results=[asdict(result) for result in found])


if __name__ == "__main__":
    main()
