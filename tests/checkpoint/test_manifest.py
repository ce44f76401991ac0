"""Whatever happens to a file of a checkpoint, the manifest knows, and names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import manifest

CONTENTS = {"__0_0.distcp": bytes(range(256)) * 64, ".metadata": b"index", "run.json": b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(folder: Path) -> Path:
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    manifest.write(folder, {name: manifest.digest(folder / name) for name in CONTENTS})
    return folder


def test_nothing_is_wrong_with_what_was_written(folder):
    assert manifest.problem(folder) is None


@given(file=st.sampled_from(sorted(CONTENTS)), position=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_and_its_file_named(tmp_path_factory, file, position, bit):
    folder = written(tmp_path_factory.mktemp("flipped"))
    content = bytearray(CONTENTS[file])
    content[position % len(content)] ^= 1 << bit
    (folder / file).write_bytes(content)
    expected = f"{folder / file} is damaged: its digest is not that of what was written"
    assert manifest.problem(folder) == expected


@pytest.mark.parametrize("file", CONTENTS)
def test_a_missing_or_shortened_file_is_named(folder, file):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    sizes = f"has {len(content) - 1:,} bytes, {len(content):,} were written"
    assert manifest.problem(folder) == f"{folder / file} {sizes}"
    (folder / file).unlink()
    assert manifest.problem(folder) == f"{folder / file} is missing"


@given(position=st.integers(0), bit=st.integers(0, 7))
def test_a_manifest_with_a_flipped_bit_accepts_nothing_but_what_was_written(
    tmp_path_factory, position, bit
):
    folder = written(tmp_path_factory.mktemp("flipped"))
    file = folder / manifest.NAME
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << bit
    file.write_bytes(content)
    if manifest.problem(folder) is None:  # white space, or a letter of a hexadecimal number
        for name in CONTENTS:
            (folder / name).write_bytes(b"else")
            assert manifest.problem(folder) is not None
            (folder / name).write_bytes(CONTENTS[name])


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"a": 1}', b'{"a": {}}', b"\xff\xfe"])
def test_a_manifest_that_makes_no_sense_is_damaged(folder, content):
    (folder / manifest.NAME).write_bytes(content)
    found = manifest.problem(folder)
    assert found is not None and found.startswith(f"{folder / manifest.NAME} is damaged")


def test_a_manifest_of_another_version_is_told(folder):
    (folder / manifest.NAME).write_text('{"a": {"bytes": 1, "sha256": "00"}}')
    assert "another version wrote it" in str(manifest.problem(folder))


def test_without_a_manifest_a_checkpoint_is_none(folder):
    (folder / manifest.NAME).unlink()
    assert manifest.problem(folder) == f"{folder / manifest.NAME} is missing"


def test_files_above_a_size_are_compared_by_it(folder):
    name = max(CONTENTS, key=lambda file: len(CONTENTS[file]))
    size = len(CONTENTS[name])
    (folder / name).write_bytes(bytes(size))
    assert manifest.problem(folder, largest=size) is not None
    assert manifest.problem(folder, largest=size - 1) is None
    (folder / name).write_bytes(bytes(size - 1))
    assert manifest.problem(folder, largest=0) is not None


def test_ranks_share_the_files_and_miss_none(folder):
    for file in CONTENTS:
        (folder / file).write_bytes(b"else")
        found = [manifest.problem(folder, part, 2) for part in range(2)]
        assert [problem is not None for problem in found].count(True) == 1
        (folder / file).write_bytes(CONTENTS[file])
