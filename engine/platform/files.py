"""Write files that appear whole or not at all, and report a refusing disk in one sentence.

Nothing here writes or deletes through a link: what a link leads to is not the writer's.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from engine.errors import RunError


@contextmanager
def replacing(path: Path, needed_bytes: int, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that becomes ``path``, by rename, when the block ends well.

    Readers see the old file or the new one, never a part. Folders are made as needed. A process
    killed in between leaves at most ``path`` with ``.part`` behind, which the next attempt
    replaces; every other failure removes it.

    Args:
        path: the file to create or replace; one writer at a time.
        needed_bytes: how much will be written, about; only the message of a full disk tells it.
        durable: have the content on the disk before it gets its name, and the name before this
            returns. Without it a power cut (not a killed process) may leave ``path`` damaged.

    Raises:
        RunError: the file system refuses (full, over quota, read-only, ...).
    """
    part = path.with_name(path.name + ".part")
    with writing(path, needed_bytes):
        _make_folder(path.parent)
        try:
            part.unlink(missing_ok=True)  # a link, too
            with part.open("xb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` with :func:`replacing`: whole, and on the disk.

    Raises:
        RunError: the file system refuses.
    """
    with replacing(path, len(content)) as file:
        file.write(content)


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, otherwise as :func:`replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` as indented JSON, otherwise as :func:`replace_bytes`."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def writing(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an OSError (full disk, no permission) into a RunError that names ``path``.

    Args:
        path: the file that is written.
        needed_bytes: its size, about, where it is known; the message of a full disk tells it.
    """
    try:
        yield
    except OSError as error:
        raise RunError(_refusal(path, needed_bytes, error)) from error


def open_to_append(path: Path) -> BinaryIO:
    """Open ``path`` to write at its end; it is made if need be.

    Raises:
        OSError: the file system refuses, or ``path`` is a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, on the disk when this returns.

    Raises:
        OSError: the file system refuses.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(file: Path) -> str:
    """Return the BLAKE3 digest of a file's content as ``b3sum`` prints it; all cores share it.

    Raises:
        OSError: it cannot be read.
    """
    return blake3(max_threads=blake3.AUTO).update_mmap(file).hexdigest()


def folders_named(pattern: str, folder: Path) -> list[Path]:
    """Return the folders in ``folder`` whose whole names match the regular expression ``pattern``.

    What a run deletes by itself it finds in this way: names that a run gives, and no links. A
    ``folder`` that is missing or a link holds none.
    """
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [
        entry
        for entry in folder.iterdir()
        if re.fullmatch(pattern, entry.name) and entry.is_dir() and not entry.is_symlink()
    ]


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` and what is in it, if it exists.

    Raises:
        RunError: the file system refuses, or ``folder`` or the folder that it is in is a link.
    """
    try:
        if folder.parent.is_symlink():
            raise OSError(f"{folder.parent} is a link")
        shutil.rmtree(folder)  # refuses a link, and follows none
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"cannot remove {folder}: {error.strerror or error}") from error


def _refusal(path: Path, needed_bytes: int | None, error: OSError) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"cannot write {path}: {error.strerror or error}{where}"
    reason = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
    free = shutil.disk_usage(_nearest(path.parent)).free
    needs = "more bytes" if needed_bytes is None else f"{needed_bytes:,} bytes"
    return (
        f"{reason}: {path.name} in {path.parent} needs {needs} and {free:,} are "
        f"free; what was finished is kept: make room and start the run again"
    )


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def _nearest(folder: Path) -> Path:
    """Return ``folder``, or the nearest one above it that exists."""
    return folder if folder.exists() else _nearest(folder.parent)
