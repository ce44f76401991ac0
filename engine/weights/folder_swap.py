"""Put a newly written folder in the place of an older one: a killed process loses neither.

While ``NAME`` is written it is called ``NAME.partial``, and for the moment between two renames the
older one is called ``NAME.replaced``.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from engine.platform.files import sync

_log = logging.getLogger(__name__)


def begin(folder: Path) -> None:
    """Make the empty folder that is to become ``folder``; tidy what a killed process left.

    Where it was killed between the two renames, the older folder gets its name back.

    Raises:
        OSError: the file system refuses.
    """
    partial, old = partial_of(folder), _old_of(folder)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)


def finish(folder: Path, durable: bool) -> None:
    """Give the folder that :func:`begin` made, and that is whole now, the name ``folder``.

    Args:
        durable: have its names on the disk when this returns; its files must be there.

    Raises:
        OSError: the file system refuses; an older folder then has its name still or again.
    """
    partial, old = partial_of(folder), _old_of(folder)
    if durable:
        sync(partial)
    replaced = folder.exists()
    if replaced:
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if replaced:
            old.rename(folder)
        raise
    if durable:
        sync(folder.parent)
    if replaced:
        try_to_remove(old)


def give_up(folder: Path) -> None:
    """Remove what is there of a new ``folder``; log it if that fails."""
    if partial_of(folder).exists():
        try_to_remove(partial_of(folder))


def try_to_remove(folder: Path) -> None:
    """Remove ``folder``; if the file system refuses, log why and leave what it does not remove.

    On NFS a folder cannot go while another process has one of its files open.
    """
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _log.warning("%s cannot be removed and stays for now: %s", folder, error)


def partial_of(folder: Path) -> Path:
    """Return what ``folder`` is called while it is written."""
    return folder.with_name(folder.name + ".partial")


def _old_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".replaced")
