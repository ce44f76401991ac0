"""What goes wrong on ranks of the pool while they save and load."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from checkpointed_runs import Life, checkpoints  # isort: skip  (readies the platform)

import psutil
import torch
import torch.distributed as dist

from engine.checkpoint import checkpoints as checkpoints_module
from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.files import Files, Written
from engine.config.layout import LayoutConfig
from engine.errors import RunError

PAGE = 4096


@contextmanager
def stopping_writers(ranks: set[int]) -> Iterator[None]:
    """The writing processes of ``ranks`` stop before their first byte, as in a slow file system."""
    write = Files.write

    def stop_then_write(self: Files) -> Written:
        os.kill(os.getpid(), signal.SIGSTOP)
        return write(self)

    if dist.get_rank() in ranks:
        Files.write = stop_then_write
    try:
        yield
    finally:
        Files.write = write


def writer() -> psutil.Process:
    """The stopped writing process of this rank."""
    (child,) = psutil.Process().children()
    while child.status() != psutil.STATUS_STOPPED:
        time.sleep(0.005)
    return child


def said_by(action: Any, *arguments: Any) -> str | None:
    try:
        action(*arguments)
    except RunError as error:
        return str(error)
    return None


def save(own: Checkpoints, step: int, life: Life) -> None:
    own.save(step, life.state, {"weight_version": step})
    own.finish()


def fill_the_disk(
    layout: LayoutConfig, model: Mapping[str, Any], folder: Path, asynchronous: bool
) -> list[str | None]:
    """Save with less room than a checkpoint needs, then a little more, until it fits."""
    life = Life(layout, model)
    own = checkpoints(folder / "checkpoints", asynchronous=asynchronous)
    save(own, 1, life)
    pages = [-(-file.stat().st_size // PAGE) for file in sorted(own.folders.folder(1).iterdir())]
    needed = sum(pages)
    said: list[str | None] = []
    for room in (0, needed // 4, needed // 2, *range(needed - 12, needed + 12)):
        dist.barrier()
        filler = folder / "filler"
        if dist.get_rank() == 0:
            disk = os.statvfs(folder)
            filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - room * PAGE))
        dist.barrier()
        said.append(said_by(save, own, 2, life))
        names = sorted(entry.name for entry in own.folders.root.iterdir())
        dist.barrier()
        if dist.get_rank() == 0:
            filler.unlink()
        if said[-1] is None:
            assert names == ["000001", "000002"]
            break
        assert names == ["000001"]
    dist.barrier()
    assert own.latest() == 2
    return said


def resume(
    layout: LayoutConfig, model: Mapping[str, Any], folder: Path, step: int | None = None
) -> tuple[int | None, str | None, str]:
    """Start from ``step`` or the latest: the step, or the error, and what was written to stderr."""
    life = Life(layout, model)
    own = checkpoints(folder)
    errors = io.StringIO()

    def start() -> None:
        nonlocal step
        step = own.latest() if step is None else step
        if step is not None:
            own.load(step, life.state)

    with redirect_stderr(errors):
        said = said_by(start)
    return step, said, errors.getvalue()


def kill_a_writer(layout: LayoutConfig, model: Mapping[str, Any], folder: Path) -> list[str | None]:
    """The writer of rank 1 is slow, and is killed; what each look at the save said."""
    life = Life(layout, model)
    own = checkpoints(folder)
    save(own, 1, life)
    with stopping_writers({1}):
        own.save(2, life.state, {})
    said: list[str | None] = []
    for step in range(3):  # training goes on
        life.update(step)
        said.append(said_by(own.poll))
    assert own.folders.steps() == [1]
    dist.barrier()
    if dist.get_rank() == 1:
        writer().kill()
    dist.barrier()
    deadline = time.monotonic() + 60
    while said[-1] is None and time.monotonic() < deadline:
        said.append(said_by(own.poll))
    assert sorted(entry.name for entry in folder.iterdir()) == ["000001"]
    assert not psutil.Process().children()
    dist.barrier()
    save(own, 3, life)
    assert own.folders.steps() == [1, 3]
    return [word for word in said if word is not None]


def exceed_the_limit(layout: LayoutConfig, model: Mapping[str, Any], folder: Path) -> str | None:
    life = Life(layout, model)
    own = checkpoints(folder, write_seconds=2.0)
    with stopping_writers({0}):
        said = said_by(save, own, 1, life)
    assert not psutil.Process().children()
    return said


def change_while_writing(
    layout: LayoutConfig, model: Mapping[str, Any], folder: Path
) -> tuple[float, float]:
    """Weights are overwritten before a byte is on the disk; how far off what is loaded is."""
    life = Life(layout, model)
    life.update(0)
    own = checkpoints(folder)
    tensors = [p.data for chunk in life.policy.chunks for p in chunk.parameters()]
    tensors += [
        state[name]
        for part in life.policy.optimizer.chained_optimizers
        for state in part.optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    ]
    before = [tensor.clone() for tensor in tensors]
    with stopping_writers({0, 1}):
        own.save(1, life.state, {})
    for tensor in tensors:
        tensor.fill_(7.0)
    changed = max((a - b).abs().max().item() for a, b in zip(tensors, before, strict=True))
    writer().resume()
    own.finish()
    own.load(1, life.state)
    now = [p.data for chunk in life.policy.chunks for p in chunk.parameters()]
    now += [
        state[name]
        for part in life.policy.optimizer.chained_optimizers
        for state in part.optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    ]
    return changed, max((a - b).abs().max().item() for a, b in zip(now, before, strict=True))


def save_twice(layout: LayoutConfig, model: Mapping[str, Any], folder: Path) -> list[int]:
    """The second save begins while the first is written: the steps that are whole by then."""
    life = Life(layout, model)
    own = checkpoints(folder)
    with stopping_writers({1}):
        own.save(1, life.state, {})
    if dist.get_rank() == 1:
        threading.Timer(0.3, writer().resume).start()
    own.save(2, life.state, {})
    whole = own.folders.steps()
    own.finish()
    assert own.folders.steps() == [1, 2]
    return whole


def save_both_ways(layout: LayoutConfig, model: Mapping[str, Any], folder: Path) -> list[bool]:
    """Save synchronously, then asynchronously: whether each was whole at once, without a child."""
    life = Life(layout, model)
    life.update(0)
    child, started = checkpoints_module.ForkedWriter, []
    whole = []

    class Counted(child):
        def __init__(self, *arguments: Any) -> None:
            started.append(True)
            super().__init__(*arguments)

    checkpoints_module.ForkedWriter = Counted
    try:
        for name, asynchronous in (("synchronous", False), ("asynchronous", True)):
            own = checkpoints(folder / name, asynchronous=asynchronous)
            with stopping_writers({0, 1} if asynchronous else set()):
                torch.manual_seed(dist.get_rank())
                own.save(1, life.state, {})
            whole.append(own.folders.steps() == [1] and not started)
            if asynchronous:
                writer().resume()
            own.finish()
    finally:
        checkpoints_module.ForkedWriter = child
    return whole
