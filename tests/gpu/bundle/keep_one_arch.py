"""Blank the GPU code of all architectures but Hopper's in libraries, so that they compress well.

    python keep_one_arch.py LIBRARY.so [LIBRARY.so ...]

Works in place. Sizes and offsets stay as they are: only the payloads of the other entries of
section .nv_fatbin become zeros. The driver picks an entry by its header and reads no other payload.

A fat binary is a header of 16 bytes (magic, version, header size, size of what follows), then
entries: each a header (kind, version, header size, payload size, ..., architecture at byte 28) and
its payload.
"""

from __future__ import annotations

import argparse
import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECTION = ".nv_fatbin"
MAGIC = 0xBA55ED50
ARCH = 90
"""Of H100 and H200."""
PTX = 1
"""Kind of an entry that holds text for the driver's compiler; others hold machine code."""


@dataclass(frozen=True)
class Entry:
    """The payload of one entry: where it lies in the file, and whose it is."""

    offset: int
    size: int
    kind: str
    arch: int

    def __str__(self) -> str:
        return f"{self.kind} sm_{self.arch}"


def sections(elf: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each section of a 64-bit little-endian ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    width, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    (strings,) = struct.unpack_from("<Q", elf, table + names * width + 24)
    for index in range(count):
        name, _, _, _, offset, size = struct.unpack_from("<IIQQQQ", elf, table + index * width)
        begin = strings + name
        yield elf[begin : elf.find(b"\0", begin)].decode(), offset, size


def entries(elf: mmap.mmap, offset: int, size: int) -> Iterator[Entry]:
    """Yield the entries of all fat binaries of a section; between them there is padding."""
    end = offset + size
    while offset <= end - 16:
        magic, _, header, length = struct.unpack_from("<IHHQ", elf, offset)
        if magic != MAGIC:
            offset += 8
            continue
        entry = offset + header
        offset = entry + length
        while entry < offset:
            kind, _, header, length = struct.unpack_from("<HHIQ", elf, entry)
            (arch,) = struct.unpack_from("<I", elf, entry + 28)
            yield Entry(entry + header, length, "ptx" if kind == PTX else "cubin", arch)
            entry += header + length


def keep(library: Path, arch: int) -> tuple[Counter[str], bool]:
    """Blank what is not for ``arch``; a library without code for it is left as it is.

    Returns:
        How many bytes there were of which kind, and whether some are for ``arch``.
    """
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as elf:
        fat = [place for name, *place in sections(elf) if name == SECTION]
        found = [entry for place in fat for entry in entries(elf, *place)]
        has_arch = any(entry.arch == arch for entry in found)
        for entry in found:
            if has_arch and entry.arch != arch:
                elf[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    sizes: Counter[str] = Counter()
    for entry in found:
        sizes[str(entry)] += entry.size
    return sizes, has_arch


def main() -> None:
    """Say how much of which architecture there was in each library that has GPU code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("library", nargs="+", type=Path)
    options = parser.parse_args()
    for library in options.library:
        sizes, has_arch = keep(library, ARCH)
        if sizes:
            said = ", ".join(
                f"{name} {size / 2**20:.1f} MiB" for name, size in sorted(sizes.items())
            )
            left = "" if has_arch else f"; left as it is, none is for sm_{ARCH}"
            print(f"{library.name}: {said}{left}")


if __name__ == "__main__":
    main()
