"""Kill the writer of a store anywhere: nothing finished is lost, nothing half-written is done."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from made_samples import make_group

from engine.rollout.store import RolloutStore

GROUPS, STEPS, SIZE = 3, 8, 4


def sample_steps(root: Path, steps: int, said: Connection | None = None) -> None:
    """What a sampler does: in every step ask for the missing groups, then finish."""
    store = RolloutStore(root)
    for step in range(steps):
        if not store.is_done(step):
            for group in sorted(set(range(GROUPS)) - set(store.finished_groups(step))):
                store.write_group(step, make_group(group, SIZE, seed=step, tokens=400))
                if said:
                    said.send((step, group))
        store.finish(step, GROUPS, seconds=0)
        if said:
            said.send((step, "done"))


def check(root: Path, steps: int, said: set[tuple[int, Any]]) -> None:
    """Hold the folder against what the writer said it had finished and what it should contain."""
    store = RolloutStore(root)
    for step in range(steps):
        whole = [
            s for group in range(GROUPS) for s in make_group(group, SIZE, seed=step, tokens=400)
        ]
        if store.is_done(step):
            assert store.samples(step) == whole
            continue
        assert (step, "done") not in said
        finished = store.finished_groups(step)
        assert {group for at, group in said if at == step} <= set(finished)
        assert all(finished[group].prompt_id == f"prompt-{group}" for group in finished)


@pytest.fixture(scope="module")
def context() -> multiprocessing.context.ForkServerContext:
    """A server that forks writers with everything imported: a kill costs milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.rollout.store", "made_samples"])
    return context


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: a killed process loses nothing of a disk's cache."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.slow
def test_killing_the_writer_at_random_moments_loses_nothing_finished(context, folder):
    rng = random.Random(1)
    kills = runs = 0
    while kills < 40:
        root = folder / f"{runs}"
        said: set[tuple[int, Any]] = set()
        while not RolloutStore(root).is_done(STEPS - 1):
            kills += write_for_a_moment(context, root, said, rng.uniform(0, 0.03))
            check(root, STEPS, said)
        files = {path.name for path in root.rglob("*") if path.is_file()}
        assert files <= {"samples.parquet", "done.json"} | {
            f"{g:06d}.parquet" for g in range(GROUPS)
        }
        runs += 1


def write_for_a_moment(
    context: multiprocessing.context.ForkServerContext,
    root: Path,
    said: set[tuple[int, Any]],
    seconds: float,
) -> bool:
    """Run a writer until it said something and ``seconds`` more; return whether it was killed."""
    ours, theirs = context.Pipe(duplex=False)
    writer = context.Process(target=sample_steps, args=(root, STEPS, theirs))
    writer.start()
    theirs.close()
    if ours.poll(30):
        writer.join(seconds)
    writer.kill()
    writer.join()
    with contextlib.suppress(EOFError):
        while True:
            said.add(ours.recv())
    return writer.exitcode == -signal.SIGKILL


def die_at(moment: int, after: bool, root: Path) -> None:
    """Write one step, but be killed before or after the n-th call that touches the disk's state."""
    count = 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*args, **kwargs)
            finally:  # also of a call that found nothing to remove
                if count == moment and after:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))
    sample_steps(root, 1)


@pytest.mark.slow
def test_killing_the_writer_at_every_change_of_the_disk_loses_nothing_finished(context, folder):
    died = 0
    for moment in range(1, 100):
        for after in (False, True):
            root = folder / f"{moment}-{after}"
            writer = context.Process(target=die_at, args=(moment, after, root))
            writer.start()
            writer.join()
            check(root, 1, set())
            sample_steps(root, 1)
            check(root, 1, {(0, "done")})
            assert not (root / "000000" / "groups").exists()
            shutil.rmtree(root)
            died += writer.exitcode == -signal.SIGKILL
        if writer.exitcode == 0:
            break
    assert died >= 2 * (3 + GROUPS + 6 + GROUPS)  # folders, groups, the end, their removal
    assert writer.exitcode == 0
