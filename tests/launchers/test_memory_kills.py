"""The kernel's counts of processes that it killed for want of memory, where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from launchers.memory_kills import MemoryKills, count_memory_kills


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("membership", "file", "text"),
    [
        ("0::/slurm/job_7\n", "slurm/job_7/memory.events", "low 0\noom 5\noom_kill 3\n"),
        (
            "5:cpu:/\n4:memory:/job_7\n0::/\n",
            "memory/job_7/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        ),
        ("0::/../host/path\n", "memory.events", "oom_kill 3\noom_group_kill 9\n"),
    ],
    ids=["version 2", "version 1", "in a container"],
)
def test_those_of_a_job_or_container_are_counted(tmp_path, membership, file, text):
    write(tmp_path / "proc" / "self" / "cgroup", membership)
    write(tmp_path / "proc" / "vmstat", "nr_free 77\noom_kill 12\n")
    write(tmp_path / "groups" / file, text)
    assert count_memory_kills(tmp_path / "proc", tmp_path / "groups") == MemoryKills(3, 12)


def test_a_machine_that_does_not_say_counts_none(tmp_path):
    assert count_memory_kills(tmp_path, tmp_path) == MemoryKills(0, 0)
    assert count_memory_kills().machine >= 0


def test_the_nearest_place_where_memory_ran_out_is_told():
    before = MemoryKills(1, 4)
    assert MemoryKills(1, 4).since(before) is None
    assert MemoryKills(1, 5).since(before) == "machine"
    assert MemoryKills(2, 5).since(before) == "job"
