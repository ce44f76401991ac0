"""Name and delete the folders of weight versions that were pushed through the disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from engine.platform.files import folders_named
from engine.weights.folder_swap import try_to_remove

_NAMES = r"[0-9]{6,}(\.partial|\.replaced|\.old)?"  # see folder_swap; .old: of earlier versions


def version_folder(root: Path, version: int) -> Path:
    """Return the folder of ``version`` in ``root``."""
    return root / f"{version:06d}"


def remove_versions(root: Path, keep: int | None = None) -> None:
    """Delete the versions in ``root`` but ``keep``: checkpoints are what a run is resumed from.

    Nothing else in ``root`` is touched; once nothing is left in it, it goes, too. What the file
    system does not delete now, the next call tries again.
    """
    for folder in folders_named(_NAMES, root):
        if keep is None or folder != version_folder(root, keep):
            try_to_remove(folder)
    if not root.is_symlink():
        with suppress(OSError):  # missing, or not empty
            root.rmdir()
