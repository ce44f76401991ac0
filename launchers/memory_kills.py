"""Count the processes that the kernel has killed for want of memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launchers.failure import Shortage

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryKills:
    """Processes killed so far; 0 where the kernel does not say."""

    job: int
    """In this process's control group, where a batch system or a container sets its limit."""
    machine: int

    def since(self, before: MemoryKills) -> Shortage | None:
        """Return where memory has run out since ``before``; None where it has not."""
        if self.job > before.job:
            return "job"
        return "machine" if self.machine > before.machine else None


def count_memory_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> MemoryKills:
    """Return how many processes the kernel has killed for want of memory.

    Args:
        proc: where the kernel tells of processes and of the machine.
        cgroups: where it tells of control groups, of version 1 or 2.
    """
    in_groups = [_counter(file) for file in _files_of_groups(proc / "self" / "cgroup", cgroups)]
    return MemoryKills(max(in_groups, default=0), _counter(proc / "vmstat"))


def _files_of_groups(membership: Path, cgroups: Path) -> list[Path]:
    """Return the files that count for this process's control group; in a container also the root's.

    There the membership names a path of the host, and the container's own group is mounted as root.
    """
    files = [cgroups / "memory.events", cgroups / "memory" / "memory.oom_control"]
    for line in _lines(membership):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            files.append(cgroups / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(cgroups / "memory" / path.lstrip("/") / "memory.oom_control")
    return files


def _counter(file: Path) -> int:
    for line in _lines(file):
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
