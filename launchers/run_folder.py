"""Lock a run's folder for one launcher, and write the configuration and logs folder into it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import BaseModel

from engine.config.reader.loading import as_yaml
from engine.config.run_folder import LOCK, reason_against
from engine.errors import RunError
from engine.platform.files import replace_text

_CLEAN_UP_SECONDS = 10.0
_ABSENT = "(absent)"


def lock(run_dir: Path) -> int:
    """Create ``run_dir`` if need be and lock it for this process and its forked children.

    Returns the open file descriptor that holds the lock; the kernel releases it when the last
    process that shares it has ended, however it ended. Raises RunError, with the holder's pid,
    when another launcher has it, and where it is no folder that a run may use
    (``engine.config.run_folder``). A holder that was killed gets a moment: its other half
    (``guardian``) is then just ending what is left of the run.
    """
    if (reason := reason_against(run_dir)) is not None:
        raise RunError(f"run_dir: {reason}")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise RunError(f"run_dir: the run folder {run_dir} cannot be written: {error}") from error
    deadline = time.monotonic() + _CLEAN_UP_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip()
            if _is_alive(holder) or time.monotonic() > deadline:
                os.close(descriptor)
                raise RunError(
                    f"run_dir: {run_dir} is in use by the launcher with pid {holder}; "
                    "stop that run first or choose another run folder"
                ) from None
            time.sleep(0.1)
    os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)  # one width: never half overwritten
    return descriptor


def _is_alive(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return False  # ValueError: the holder has not written its pid yet


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return how configuration tree ``after`` differs from ``before``: "a.b: 1 -> 2" per leaf."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            line
            for key in keys
            for line in differences(
                before.get(key, _ABSENT), after.get(key, _ABSENT), f"{path}.{key}".lstrip(".")
            )
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def write_config(config: BaseModel, run_dir: Path) -> list[str]:
    """Write ``run_dir/config.yaml``; return how it differs from the one that was there, if any.

    Raises RunError when it cannot be written.
    """
    file = run_dir / "config.yaml"
    try:
        before = yaml.safe_load(file.read_text()) if file.exists() else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"run_dir: {file} cannot be read: {error}; remove it to go on") from error
    text = as_yaml(config)
    replace_text(file, text)
    return [] if before is None else differences(before, yaml.safe_load(text))


def make_logs(run_dir: Path) -> Path:
    """Return the folder of the processes' logs, made if need be. Raises RunError if that fails."""
    logs = run_dir / "logs"
    try:
        logs.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"run_dir: the folder for logs cannot be made: {error}") from error
    return logs
