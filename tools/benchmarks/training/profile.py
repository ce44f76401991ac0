"""Profile a training step with the torch profiler: time by kernel and by group of kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from engine.platform import accelerator
from tools.benchmarks.training.kernel_groups import group_of

LONGEST_NAME = 90
TOP = 15


@dataclass(frozen=True)
class Kernel:
    """All runs of one kernel in a step (on a CPU: of one operator, without those it calls)."""

    name: str
    seconds: float
    calls: int

    @property
    def group(self) -> str:
        """See :mod:`tools.benchmarks.training.kernel_groups`."""
        return group_of(self.name)


@dataclass(frozen=True)
class Profile:
    """One step under the profiler.

    Attributes:
        seconds: of the step by the clock; the profiler slows it down.
        busy_seconds: in which at least one kernel ran. Kernels of several streams overlap, so that
            the sum over ``kernels`` can be more.
        kernels: the longest first.
    """

    seconds: float
    busy_seconds: float
    kernels: tuple[Kernel, ...]

    def groups(self) -> dict[str, float]:
        """Return the seconds of each group's kernels, the longest first."""
        seconds: dict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            seconds[kernel.group] += kernel.seconds
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def profiled(step: Callable[[], float]) -> Profile:
    """Run ``step``, which returns its seconds, under the profiler.

    It must have waited for its kernels when it returns.
    """
    gpu = accelerator.has_gpu()
    activity = ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], acc_events=True) as profiler:
        seconds = step()
    device = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
    events = [event for event in profiler.events() if event.device_type == device]
    total: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        total[event.name] += event.self_device_time_total if gpu else event.self_cpu_time_total
        calls[event.name] += 1
    kernels = [Kernel(name, micro / 1e6, calls[name]) for name, micro in total.items()]
    return Profile(
        seconds=seconds,
        busy_seconds=covered((e.time_range.start, e.time_range.end) for e in events) / 1e6,
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.seconds)),
    )


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of ``intervals``, each from its start to its end."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def lines(row: str, profile: Profile) -> list[str]:
    """Return the profile of the table's ``row`` as text: groups, then the longest kernels."""
    everything = sum(kernel.seconds for kernel in profile.kernels) or 1.0
    found = [
        f"{row}: where the time goes; a step of {profile.seconds:.3f} s under the profiler, "
        f"kernels ran in {profile.busy_seconds / profile.seconds:.0%} of it"
    ]
    for group, seconds in profile.groups().items():
        found.append(f"  {group:24}{seconds * 1e3:9.1f} ms{seconds / everything:8.1%}")
    found.append(f"  the {TOP} longest kernels:")
    for kernel in profile.kernels[:TOP]:
        found.append(
            f"  {kernel.seconds * 1e3:9.1f} ms{kernel.seconds / everything:8.1%}"
            f"{kernel.calls:8} x  {kernel.name[:LONGEST_NAME]}"
        )
    return found
