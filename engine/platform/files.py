"""Small files written whole or not at all, and one clear sentence when the disk refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError (full disk, no permission) into a RunError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def replace_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` by rename: readers see the old file or the new, never half.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, on the disk.

    Raises:
        OSError: the file system refuses.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, otherwise as :func:`replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` as indented JSON, otherwise as :func:`replace_bytes`."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
