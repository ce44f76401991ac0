"""An export is the source bit for bit in every layout, is whole or absent, and needs no memory."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from random_source import random_model
from rank_case import run_case
from safetensors.torch import load_file
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.errors import RunError
from engine.weights.hugging_face import INDEX, HuggingFaceFolder
from tools.benchmarks.parity.models import DENSE, GQA_MOE, MODELS

pytestmark = pytest.mark.slow

LAYOUTS = {
    "one process": {"processes": 1},
    "tp2": {"processes": 2, "tp": 2},
    "pp2": {"processes": 2, "pp": 2},
    "ep2": {"processes": 2, "ep": 2},
    "tp2 pp2 ep2": {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
}
TWO = LayoutConfig(processes=2, tp=2)
BUCKET = 40_000
"""Bytes: several buckets for each rank, and an embedding that is larger than one."""


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, by the library alone; a name in two files fails."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        held = load_file(file)
        assert not held.keys() & found.keys()
        found |= held
    return found


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_what_is_exported_is_what_was_loaded_bit_for_bit(pool, sources, model, layout, tmp_path):
    sizes = dict(LAYOUTS[layout])
    if model == "dense":
        sizes.pop("ep", None)
    source, to = sources[model], tmp_path / "exported"
    run = {"source": source, "to": to, "bucket_bytes": BUCKET}
    ranks = pool.run(run_case, LayoutConfig(**sizes), what="export_again", **run)
    before, after = tensors_of(source), tensors_of(to)
    assert before.keys() == after.keys()
    assert [name for name in before if not same_bits(before[name], after[name])] == []
    folder = HuggingFaceFolder(to)
    folder.check_shards()
    count = len(list(to.glob("*.safetensors")))
    shards = [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
    assert json.loads((to / INDEX).read_text())["metadata"] == {
        "total_size": sum(tensor.nbytes for tensor in after.values())
    }
    assert folder.config == HuggingFaceFolder(source).config
    assert {file.name for file in to.iterdir()} == {*shards, INDEX, "config.json", "tokenizer.json"}
    # Every rank received its share, and wrote what it received.
    received = sorted(bucket for rank in ranks for bucket in rank)
    assert [number for number, _ in received] == list(range(count))
    assert all(received_by_one for received_by_one in ranks)
    for number, names in received:
        assert {folder.files[name].name for name in names} == {shards[number]}


def test_a_model_of_one_bucket_has_one_file_and_no_index(pool, sources, tmp_path):
    run = {"source": sources["moe gqa"], "to": tmp_path / "exported", "bucket_bytes": 1 << 30}
    pool.run(run_case, TWO, what="export_again", **run)
    names = {file.name for file in (tmp_path / "exported").iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}


def test_config_says_what_is_stored(pool, sources, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    told = {"dtype": "float32", "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}}
    config = {**GQA_MOE, **told}
    config["quantization_config"]["weight_block_size"] = [128, 128]
    (source / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    (source / "model.safetensors").symlink_to(sources["moe gqa"] / "model.safetensors")
    run = {"source": source, "to": tmp_path / "exported", "bucket_bytes": BUCKET}
    pool.run(run_case, TWO, what="export_again", **run)
    found = HuggingFaceFolder(tmp_path / "exported").config
    assert found == {**GQA_MOE, "dtype": "bfloat16"}


def test_a_model_of_other_tensors_is_refused_when_the_stream_is_built(pool, sources):
    config = {**GQA_MOE, "num_hidden_layers": 3}
    said = pool.run(
        run_case, TWO, what="of_another_model", source=sources["moe gqa"], config=config
    )
    assert all(
        one.startswith("weight rules and model differ in [\"('decoder.layers.3.") for one in said
    )


@pytest.mark.parametrize("full", [0, 1])
def test_a_full_disk_of_one_rank_is_said_by_all_and_the_folder_before_stays(
    pool, sources, tmp_path, full
):
    to = tmp_path / "exported"
    run = {"source": sources["moe gqa"], "to": to, "bucket_bytes": BUCKET}
    answers = pool.run(run_case, TWO, what="refused", full=full, **run)
    reason = f"weights cannot be written to {to}: No space left on device, on rank {full}"
    assert answers == [(reason, ["exported"], True)] * 2
    assert tensors_of(to).keys() == tensors_of(sources["moe gqa"]).keys()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", [ValueError("a is written twice"), KeyError("int8")])
def test_any_error_of_one_ranks_writer_is_said_by_all_and_no_bucket_is_kept(
    pool, sources, tmp_path, rank, error
):
    to = tmp_path / "exported"
    run = {"source": sources["moe gqa"], "to": to, "bucket_bytes": BUCKET}
    answers = pool.run(run_case, TWO, what="failing_writer", rank=rank, error=error, **run)
    reason = f"weights cannot be written to {to}: {type(error).__name__}: {error}, on rank {rank}"
    assert answers == [(reason, [], 0)] * 2


@pytest.mark.parametrize(("moved", "refused"), [(0, False), (4, True)])
def test_pieces_that_overlap_and_leave_a_gap_are_refused(pool, sources, moved, refused):
    answers = pool.run(run_case, TWO, what="said_of_pieces", source=sources["moe gqa"], moved=moved)
    for said in answers:
        assert ("do not make up" in said) == refused


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_wherever_the_disk_runs_full_no_half_folder_stays(pool, sources, small_disk):
    first, second = pool.run(
        run_case, TWO, what="until_it_fits", source=sources["moe gqa"], disk=small_disk
    )
    assert first == second
    *refused, fitted = first
    assert fitted is None and len(refused) > 3
    reason = f"weights cannot be written to {small_disk / 'weights'}: No space left on device"
    assert set(refused) <= {f"{reason}, on rank {rank}" for rank in (0, 1)}


def test_a_push_through_the_disk_leaves_the_newest_version_alone(pool, sources, tmp_path):
    first, second = pool.run(
        run_case, TWO, what="push_twice", source=sources["dense"], room=tmp_path
    )
    assert first == [(["000001"], 1), (["000001", "000002"], 2), (["000002"], 0)]
    assert second[-1:] == first[-1:]


SENTENCE = "pushing weight version 1: server a died"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RunError(SENTENCE), SENTENCE),
        (TypeError("a bug"), "pushing weight version 1: TypeError: a bug"),
    ],
)
def test_an_update_that_a_server_refuses_is_said_by_all_ranks(
    pool, sources, tmp_path, error, sentence
):
    run = {"source": sources["dense"], "room": tmp_path, "error": error}
    assert pool.run(run_case, TWO, what="refused_push", **run) == [sentence] * 2


def test_a_folder_that_cannot_be_removed_is_tried_again_and_a_file_stays(pool, sources, tmp_path):
    (tmp_path / "notes.txt").write_text("somebody's")
    run = {"source": sources["dense"], "room": tmp_path}
    for found in pool.run(run_case, TWO, what="push_beside_what_stays", **run):
        assert found == [
            ["000001", "notes.txt"],
            ["000001", "000002", "notes.txt"],
            ["000003", "notes.txt"],
        ]


MB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Models of 8 and 16 layers, of 104 and 200 MB; no tensor is larger than 8 MB."""
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "vocab_size": 4096}
    return {
        layers: random_model(
            tmp_path_factory.mktemp("large") / "model",
            {**DENSE, **sizes, "num_hidden_layers": layers},
            "float32",
        )
        for layers in (8, 16)
    }


def test_memory_of_an_export_is_bounded_by_the_bucket_whatever_the_models_size(
    pool, large, tmp_path
):
    limit = 8 * MB
    stages = LayoutConfig(processes=2, pp=2)
    for layout in (TWO, stages):
        for layers, source in large.items():
            run = {"source": source, "to": tmp_path / "exported", "bucket_bytes": limit}
            for peak, size in pool.run(run_case, layout, what="peaks", whole=False, **run):
                assert size > (100 if layers == 8 else 190) * MB
                # The bucket, the pieces of it, and what a process needs anyhow.
                assert peak < 2 * limit + 4 * MB, f"{layers} layers: {peak / MB:.0f} MB"
    # The measure sees it when a rank holds the whole model.
    (peak, size), _ = pool.run(run_case, stages, what="peaks", whole=True, **run)
    assert peak > size
