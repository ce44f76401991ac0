"""keep_one_arch.py on ELF files that the tests write."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import keep_one_arch
import pytest
from hypothesis import given
from hypothesis import strategies as st

ELF_HEADER, SECTION_HEADER, ENTRY_HEADER = 64, 64, 64


@dataclass(frozen=True)
class Code:
    """One entry of a fat binary."""

    kind: int
    arch: int
    payload: bytes

    def written(self, blank: bool = False) -> bytes:
        header = struct.pack("<HHIQ", self.kind, 0x101, ENTRY_HEADER, len(self.payload))
        header = header.ljust(28, b"\x11") + struct.pack("<I", self.arch)
        return header.ljust(ENTRY_HEADER, b"\x22") + (
            bytes(len(self.payload)) if blank else self.payload
        )


CODE = st.builds(
    Code,
    st.sampled_from([keep_one_arch.PTX, 2]),
    st.sampled_from([75, 80, 90, 100]),
    st.binary(min_size=1, max_size=8).map(lambda seed: (seed * 8)[:64].ljust(64, b"\xff")),
)
BINARIES = st.lists(st.lists(CODE, max_size=4), max_size=3)


def fat(binaries: list[list[Code]], keep: int | None = None) -> bytes:
    """A section of fat binaries; all but ``keep`` blanked, or none."""
    written = b""
    for codes in binaries:
        body = b"".join(code.written(keep not in (None, code.arch)) for code in codes)
        written += struct.pack("<IHHQ", keep_one_arch.MAGIC, 1, 16, len(body)) + body + bytes(16)
    return written


def elf(sections: dict[str, bytes]) -> bytes:
    """A 64-bit ELF file; the table of sections comes last, and the one of names is the last one."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    contents = {**sections, ".shstrtab": names}
    body, table, at = b"", bytes(SECTION_HEADER), ELF_HEADER
    for name, content in contents.items():
        place = (names.index(name.encode() + b"\0"), 1, 0, 0, at + len(body), len(content))
        table += struct.pack("<IIQQQQ", *place).ljust(SECTION_HEADER, b"\0")
        body += content
    header = b"\x7fELF\x02\x01\x01".ljust(0x28, b"\0") + struct.pack("<Q", at + len(body))
    count = len(contents) + 1
    header = header.ljust(0x3A, b"\0") + struct.pack("<HHH", SECTION_HEADER, count, count - 1)
    return header + body + table


@given(binaries=BINARIES, other=st.binary(max_size=64))
def test_the_kept_code_is_unchanged_and_only_the_others_payloads_are_zeros(
    tmp_path_factory: pytest.TempPathFactory, binaries: list[list[Code]], other: bytes
) -> None:
    file = tmp_path_factory.mktemp("elf") / "library.so"
    # What looks like a fat binary elsewhere is none.
    around = {".text": fat([[Code(2, 80, b"\x90" * 64)]]), ".data": other}
    file.write_bytes(elf({**around, keep_one_arch.SECTION: fat(binaries)}))
    sizes, has_arch = keep_one_arch.keep(file, 90)
    assert has_arch == any(code.arch == 90 for codes in binaries for code in codes)
    expected = fat(binaries, keep=90 if has_arch else None)
    assert file.read_bytes() == elf({**around, keep_one_arch.SECTION: expected})
    assert sum(sizes.values()) == sum(len(code.payload) for codes in binaries for code in codes)


def test_a_library_without_gpu_code_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "library.so"
    file.write_bytes(elf({".text": b"code"}))
    assert keep_one_arch.keep(file, 90) == ({}, False)
    assert file.read_bytes() == elf({".text": b"code"})
