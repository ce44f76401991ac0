"""Block-FP8 folders, in and out: DeepSeek-V3's form."""

from __future__ import annotations

import json

import pytest
import torch
from conversions import command, to_hugging_face, to_megatron, verified
from random_models import CONFIGS, all_tensors, random_folder

from engine.errors import RunError
from engine.weights.block_fp8 import dequantise, quantise
from tools.convert.inspection import lines
from tools.convert.opening import open_source

MODEL = "deepseek_v3 with prediction head"
SCALE = "_scale_inv"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    # wider than a block of 128, and no multiple of it
    sizes = {"hidden_size": 140, "intermediate_size": 150}
    folder = tmp_path_factory.mktemp("plain") / "source"
    return random_folder(folder, MODEL, torch.bfloat16, **sizes)


@pytest.fixture(scope="module")
def quantised(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    return to_hugging_face(to_megatron(plain, folder / "there"), folder / "fp8", dtype="fp8")


def test_the_matrices_are_quantised_and_nothing_else(plain, quantised):
    before, after = all_tensors(plain), all_tensors(quantised)
    scales = {name for name in after if name.endswith(SCALE)}
    assert after.keys() - scales == before.keys()
    for name, tensor in before.items():
        is_matrix = name.endswith(("_proj.weight", "_with_mqa.weight")) and "eh_proj" not in name
        assert (name + SCALE in scales) == is_matrix, name
        if is_matrix:
            expected, scale = quantise(tensor, (128, 128))
            assert torch.equal(after[name].view(torch.uint8), expected.view(torch.uint8))
            assert torch.equal(after[name + SCALE], scale)
        else:
            assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor)
    config = json.loads((quantised / "config.json").read_text())
    assert config["quantization_config"]["weight_block_size"] == [128, 128]
    assert config["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", CONFIGS)
def test_of_every_family_all_matrices_but_routers_and_heads_are_quantised(name, folders, tmp_path):
    there = to_megatron(folders[name], tmp_path / "there")
    fp8 = to_hugging_face(there, tmp_path / "fp8", dtype="fp8")
    kept = (".gate.weight", "eh_proj.weight", "embed_tokens.weight", "head.weight")
    assert {n for n, t in all_tensors(fp8).items() if t.dtype == torch.float8_e4m3fn} == {
        n for n, t in all_tensors(folders[name]).items() if t.ndim == 2 and not n.endswith(kept)
    }


def test_verification_compares_what_was_written(plain, quantised):
    assert verified(plain, quantised).dtype == "fp8"


def test_inspection_shows_what_is_stored(quantised):
    text = "\n".join(lines(open_source(quantised)))
    assert "float8_e4m3fn" in text and "float32" in text


@pytest.mark.slow
def test_logits_of_a_quantised_folder_are_those_of_its_conversion(quantised, tmp_path):
    there = to_megatron(quantised, tmp_path / "there", tp=2)
    checking = command("verify", "--from", quantised, "--to", there, "--logits")
    output, errors = checking.communicate(timeout=240)
    assert checking.returncode == 0, errors
    assert "logits of 41 tokens differ by" in output


def test_a_quantised_source_is_dequantised(quantised, tmp_path):
    there = to_megatron(quantised, tmp_path / "there", tp=2, pp=2, ep=2)
    assert "quantization_config" not in json.loads((there / "config.json").read_text())
    assert verified(quantised, there).dtype is None
    back, stored = all_tensors(to_hugging_face(there, tmp_path / "back")), all_tensors(quantised)
    assert back.keys() == {name for name in stored if not name.endswith(SCALE)}
    for name, tensor in back.items():
        if name + SCALE in stored:
            whole = dequantise(stored[name], stored[name + SCALE], (128, 128))
            assert torch.equal(tensor, whole.bfloat16())
        else:
            assert torch.equal(tensor, stored[name])


def test_scales_that_are_missing_are_told(quantised, tmp_path):
    import shutil

    source = shutil.copytree(quantised, tmp_path / "source")
    index = source / "model.safetensors.index.json"
    name = "model.layers.0.self_attn.o_proj.weight_scale_inv"
    from random_models import change

    change(source, name, lambda tensor: None)
    found = json.loads(index.read_text())
    del found["weight_map"][name]
    index.write_text(json.dumps(found))
    with pytest.raises(RunError, match=r"o_proj\.weight in FP8 and no scales"):
        to_megatron(source, tmp_path / "there")
    assert not (tmp_path / "there").exists()
