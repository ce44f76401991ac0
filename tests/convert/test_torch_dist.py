"""Pieces cover a tensor exactly, are read by torch's own reader, and damage is told."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint import FileSystemReader, load

from tools.convert.cuts import Cuts
from tools.convert.torch_dist import PieceWriter, assemble, read_index, write_index

KEYS = (
    "decoder.layers.0.mlp.linear_fc1.weight",
    "decoder.layers.0.mlp.linear_fc2.weight",
    "decoder.layers.0.self_attention.linear_qkv.weight",
    "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight",
)


@given(
    key=st.sampled_from(KEYS),
    tp=st.integers(1, 9),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    expert=st.sampled_from([None, 3]),
)
def test_the_pieces_of_a_tensor_cover_it_exactly_once(key, tp, rows, columns, expert):
    shape = (2 * rows, columns) if key.endswith(".weight") else (2 * rows,)
    counted = torch.zeros(shape)
    pieces = Cuts(tp=tp).pieces(key, expert, shape)
    for piece in pieces:
        assert all(part.start < part.stop for part in piece)
        counted[piece] += 1
    assert (counted == 1).all()
    assert len(pieces) <= 2 * tp


@given(tp=st.integers(1, 5), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_what_is_written_is_read_by_us_and_by_torch(tp, dtype):
    dense, experts = torch.randn(10, 6).to(dtype), torch.randn(3, 8, 4).to(dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with PieceWriter(folder / "__a.distcp") as writer:
            pieces = writer.append("dense", None, dense, Cuts(tp=tp).pieces(KEYS[2], None, (10, 6)))
            for expert in range(3):
                cuts = Cuts(tp=tp).pieces(KEYS[0], expert, (8, 4))
                pieces += writer.append("experts", (expert, 3), experts[expert], cuts)
            writer.finish()
            assert writer.bytes == (folder / "__a.distcp").stat().st_size
        write_index(folder, pieces)
        found = read_index(folder)
        assert torch.equal(assemble(folder, found["dense"]), dense)
        for expert in range(3):
            assert torch.equal(assemble(folder, found["experts"], expert), experts[expert])
        theirs = {"dense": torch.empty_like(dense), "experts": torch.empty_like(experts)}
        load(theirs, storage_reader=FileSystemReader(folder), no_dist=True)
    assert torch.equal(theirs["dense"], dense) and torch.equal(theirs["experts"], experts)


@pytest.fixture
def stored(tmp_path):
    with PieceWriter(tmp_path / "__a.distcp") as writer:
        cuts = Cuts(tp=2).pieces(KEYS[2], None, (4, 2))
        pieces = writer.append("w", None, torch.arange(8.0).reshape(4, 2), cuts)
        writer.finish()
    return tmp_path, pieces


def test_pieces_that_lack_a_part_or_have_it_twice_make_no_whole(stored):
    folder, (first, second) = stored
    for wrong in ([first], [first, second, second], [first, replace(second, offset=(0, 0))]):
        with pytest.raises(ValueError, match=r"do not make a whole of shape \(4, 2\)"):
            assemble(folder, wrong)


def test_a_file_that_does_not_hold_the_piece_is_named(stored):
    folder, (first, second) = stored
    with pytest.raises(ValueError, match=r"__a\.distcp holds no piece of w"):
        assemble(folder, [first, replace(second, start=second.start + 8)])
    with pytest.raises(ValueError, match=r"__a\.distcp holds w \(2, 2\), not \(1, 4\)"):
        replace(first, sizes=(1, 4)).read(folder)


def test_a_damaged_index_is_told(stored):
    folder, pieces = stored
    write_index(folder, pieces)
    index = folder / ".metadata"
    index.write_bytes(index.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"\.metadata is damaged"):
        read_index(folder)
