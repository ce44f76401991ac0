"""The folder of a part's tokens: a dataset, and ``source.json``, which says what it was made from.

It is made aside and renamed, so that there is never half a one. What the checks before a run have
made lies in the user's cache; the run links to it, or copies it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engine.data.token_dataset import TokenDataset
from engine.data.user_cache import cache_folder
from engine.errors import RunError
from engine.platform.files import replace_json, writing

_SOURCE = "source.json"
_LAST = "dataset.json"  # written after all others


@dataclass
class SampleCounts:
    """What became of a part's conversations.

    Attributes:
        conversations: that were read.
        samples: that are kept.
        dropped: samples that were too long.
        longest: tokens of the longest sample, dropped ones included; 0 where that is not known.
    """

    conversations: int = 0
    samples: int = 0
    dropped: int = 0
    longest: int = 0

    def __str__(self) -> str:
        lost = f", {self.dropped:,} dropped as too long" if self.dropped else ""
        return f"{self.samples:,} samples of {self.conversations:,} conversations{lost}"


def is_whole(place: Path) -> bool:
    """Return whether ``place`` holds a dataset to its end, its files of the right sizes."""
    if not (place / _LAST).is_file() or not (place / _SOURCE).is_file():
        return False
    try:
        TokenDataset(place)
    except RunError:  # damaged; it is made anew
        return False
    return True


def write_counts(folder: Path, source: dict[str, Any], counts: SampleCounts) -> None:
    """Write down what the dataset in ``folder`` is made from, and what became of it."""
    replace_json(folder / _SOURCE, {**source, **asdict(counts)})


def read_counts(place: Path) -> SampleCounts:
    """Return what :func:`write_counts` has written."""
    found = json.loads((place / _SOURCE).read_text(encoding="utf-8"))
    known = {field.name: found[field.name] for field in fields(SampleCounts) if field.name in found}
    return SampleCounts(**known)


@contextmanager
def made_aside(place: Path) -> Iterator[Path]:
    """Give a folder that becomes ``place`` at the end, and is removed if an error comes before.

    Raises:
        RunError: the disk is full, or the folder may not be written.
    """
    scratch = place.with_name(unfinished(place, f"{socket.gethostname()}.{os.getpid()}"))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield scratch
        if not is_whole(place):
            shutil.rmtree(place, ignore_errors=True)
        with writing(place):
            try:
                scratch.rename(place)
            except OSError:
                if not is_whole(place):  # else another run was faster, with the same
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unfinished(place: Path, writer: str) -> str:
    """Return the name of the folder in which ``writer`` makes ``place``; there may be several."""
    return f".{place.name}.{writer}"


def cached(name: str) -> Path | None:
    """Return where the user's cache has, or would have, the dataset ``name``; None without one."""
    folder = cache_folder("conversations")
    return folder / name if folder is not None else None


def take_from_cache(place: Path) -> bool:
    """Make ``place`` of the cached dataset of the same name; return whether there is one."""
    kept = cached(place.name)
    if kept is None or not is_whole(kept):
        return False
    with suppress(OSError), made_aside(place) as scratch:
        shutil.copytree(kept, scratch, copy_function=_link)
        os.utime(kept)
    return is_whole(place)


def _link(source: str, target: str) -> None:
    """Link to a file, which nobody changes, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
