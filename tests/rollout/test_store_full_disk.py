"""A disk that is really full: one sentence with folder and bytes, and finished work intact."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_samples import make_group

from engine.errors import RunError
from engine.platform.files import replacing
from engine.rollout.store import RolloutStore

pytestmark = pytest.mark.slow

GROUPS = 6
PAGE = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_free(disk: Path, free: int) -> Path:
    """Fill the disk but for ``free`` bytes; returns the file to remove to make room."""
    filler = disk / "filler"
    available = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(bytes(available - free))
    return filler


def sample_step(store: RolloutStore, written: set[int]) -> None:
    for group in sorted(set(range(GROUPS)) - set(store.finished_groups(0))):
        store.write_group(0, make_group(group, tokens=500))
        written.add(group)
    store.finish(0, GROUPS, seconds=0)


def test_wherever_the_disk_runs_full_it_is_said_and_nothing_finished_is_lost(small_disk):
    whole = [sample for group in range(GROUPS) for sample in make_group(group, tokens=500)]
    failures = set()
    for pages in range(80):
        root = small_disk / "rollouts"
        store, written = RolloutStore(root), set()
        filler = leave_free(small_disk, pages * PAGE)
        try:
            sample_step(store, written)
            fitted = True
        except RunError as error:
            fitted = False
            said = re.fullmatch(
                r"the disk is full: (\S+) in (\S+) needs ([\d,]+) bytes and ([\d,]+) are free; "
                r"what was finished is kept: make room and start the run again",
                str(error),
            )
            assert said, str(error)
            assert said[2].startswith(str(root))
            assert int(said[3].replace(",", "")) > 0
            failures.add(said[1])
            assert set(store.finished_groups(0)) == written
            assert not store.is_done(0)
            assert not list(root.rglob("*.part"))
        filler.unlink()
        sample_step(store, written)
        assert store.samples(0) == whole
        store.discard(0)
        if fitted:
            break
    assert fitted
    # Groups, the merge and the last word were each refused once.
    assert failures >= {"000000.parquet", "000005.parquet", "samples.parquet", "done.json"}


def test_a_used_up_quota_and_other_refusals_are_told_apart(tmp_path):
    with (
        pytest.raises(RunError, match=r"disk quota is used up: a in .* needs 1,234 bytes"),
        replacing(tmp_path / "a", 1234),
    ):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with (
        pytest.raises(RunError, match=r"cannot write .*/a: Read-only file system"),
        replacing(tmp_path / "a", 1234),
    ):
        raise OSError(errno.EROFS, "Read-only file system")
    assert list(tmp_path.iterdir()) == []
