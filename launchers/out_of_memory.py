"""Whether the kernel has killed processes because memory ran out."""

from __future__ import annotations

from pathlib import Path


def kills() -> int:
    """How often it has done so since this machine started; 0 where the kernel does not say."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
