"""Recognise what Git LFS puts in the place of a file that it has not fetched."""

from __future__ import annotations

from pathlib import Path

BEGINNING = b"version https://git-lfs"
"""First bytes of a pointer."""
POINTER_REMARK = "it is a pointer of Git LFS; fetch the file itself with git lfs pull"
"""What to say of a file that :func:`is_pointer`."""


def is_pointer(file: Path) -> bool:
    """Return whether ``file`` is such a pointer.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return stream.read(len(BEGINNING)) == BEGINNING
