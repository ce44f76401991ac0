"""Write and check a checkpoint's manifest: size and digest of every file.

So damage is never loaded. It is written last, when all other files are on the disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3

from engine.platform.files import replace_json

NAME = "manifest.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """Size and digest of a file's content.

    Attributes:
        bytes: its size.
        blake3: hexadecimal digest of its content, as ``b3sum`` prints it.
    """

    bytes: int
    blake3: str


def digest(file: Path) -> Digest:
    """Return the digest of ``file``, read once. Raises OSError when it cannot be read."""
    hasher, size = blake3(), 0
    buffer = memoryview(bytearray(_BLOCK))
    with file.open("rb", buffering=0) as content:
        while count := content.readinto(buffer):
            hasher.update(buffer[:count])
            size += count
    return Digest(size, hasher.hexdigest())


def write(folder: Path, digests: Mapping[str, Digest]) -> None:
    """Write the manifest of ``folder``, digests by file name; on the disk when this returns.

    Raises:
        RunError: the file system refuses.
    """
    replace_json(folder / NAME, {name: asdict(digests[name]) for name in sorted(digests)})


def problem(folder: Path, part: int = 0, parts: int = 1, largest: float = math.inf) -> str | None:
    """Return what is wrong with the checkpoint in ``folder``: one clause that names the file.

    Args:
        part, parts: look at each ``parts``-th file, beginning with number ``part``; so several
            ranks share the reading of a large checkpoint.
        largest: files of more bytes are not read: their size is compared.

    Returns:
        None where every file is as it was written.
    """
    try:
        listed = json.loads((folder / NAME).read_text())
        digests = {name: Digest(**found) for name, found in listed.items()}
    except FileNotFoundError:
        return f"{folder / NAME} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{folder / NAME} is damaged, or another version wrote it ({error})"
    if not digests:
        return f"{folder / NAME} is damaged (it names no file)"
    for name in sorted(digests)[part::parts]:
        if (wrong := _difference(folder / name, digests[name], largest)) is not None:
            return wrong
    return None


def _difference(file: Path, expected: Digest, largest: float) -> str | None:
    try:
        size = file.stat().st_size
        if size != expected.bytes:
            return f"{file} has {size:,} bytes, {expected.bytes:,} were written"
        if size <= largest and digest(file) != expected:
            return f"{file} is damaged: its digest is not that of what was written"
    except FileNotFoundError:
        return f"{file} is missing"
    except OSError as error:
        return f"{file} cannot be read ({error.strerror or error})"
    return None
