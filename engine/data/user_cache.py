"""What is kept of one run for the next in the user's cache: ``$XDG_CACHE_HOME``, else ``~/.cache``.

Entries are files or folders, named by a digest of all that decides their contents.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

_KEPT_SECONDS = 60 * 86400.0  # an unused entry stays so long


def cache_folder(kind: str) -> Path | None:
    """Return the folder of all entries of a kind; None if the user has no folder for caches."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:  # no home
        return None
    return base / "r1-engine" / kind


def forget_unused(folder: Path) -> None:
    """Remove the entries of ``folder`` that nobody has used for sixty days.

    Whoever uses an entry sets its time (``os.utime``).

    Raises:
        OSError: one cannot be removed.
    """
    oldest = time.time() - _KEPT_SECONDS
    for entry in folder.iterdir():
        if entry.stat().st_mtime < oldest:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
