"""Progress bar on stderr: bytes done of all, with the speed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from tools.convert.sources import Source


@contextmanager
def bar(source: Source, what: str) -> Iterator[Callable[[int], object]]:
    """Show how much of ``source`` has been read; shows nothing where stderr is no terminal.

    Yields:
        A function to call with the bytes that were read, from any thread.
    """
    total = sum(part.bytes for m in source.maps.values() for part in source.describe(m))
    with tqdm(
        total=total,
        desc=what,
        unit="B",
        unit_scale=True,  # so the speed is shown in GB/s
        disable=None,
        dynamic_ncols=True,
        file=sys.stderr,
    ) as shown:
        yield shown.update
