"""Files that appear whole or not at all, even after a power cut; clear words for a full disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from engine.errors import RunError
from engine.platform import files


@contextmanager
def replacing(path: Path, needed_bytes: int, *, sync: bool) -> Iterator[BinaryIO]:
    """Yield a file that becomes ``path`` when the block ends well; folders are made as needed.

    A process killed in between leaves at most ``path`` with ``.part`` behind, which the next
    attempt overwrites; every other failure removes it.

    Args:
        path: the file to create or replace; one writer at a time.
        needed_bytes: how much will be written, about; only the message of a full disk tells it.
        sync: have the content on the disk before it gets its name, and the name before this
            returns. Without it a power cut (not a killed process) may leave ``path`` damaged.

    Raises:
        RunError: the file system refuses (full, over quota, read-only, ...).
    """
    part = path.with_name(path.name + ".part")
    try:
        _make_folder(path.parent)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        if sync:
            files.sync(path.parent)
    except OSError as error:
        raise RunError(_refusal(path, needed_bytes, error)) from error


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` and what is in it, if it exists.

    Raises:
        RunError: the file system refuses.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"cannot remove {folder}: {error.strerror or error}") from error


def _refusal(path: Path, needed_bytes: int, error: OSError) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"cannot write {path}: {error.strerror or error}{where}"
    reason = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
    free = shutil.disk_usage(_nearest(path.parent)).free
    return (
        f"{reason}: {path.name} in {path.parent} needs {needed_bytes:,} bytes and {free:,} are "
        f"free; what was finished is kept: make room and start the run again"
    )


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        files.sync(folder.parent)


def _nearest(folder: Path) -> Path:
    return folder if folder.exists() else _nearest(folder.parent)
