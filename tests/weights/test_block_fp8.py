"""Block-FP8 weights: exact where FP8 is, near elsewhere, plain tensors to whoever reads them."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from engine.errors import RunError
from engine.weights.block_fp8 import FP8, dequantise, quantise
from engine.weights.hugging_face import HuggingFaceFolder, plain_config
from engine.weights.quantisation import described, grid

CONFIG = {
    "torch_dtype": "bfloat16",
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
}


@st.composite
def matrices(draw):
    block = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    weight = torch.randn(shape, generator=generator) * 10.0 ** draw(st.integers(-6, 4))
    weight[torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 0
    return weight, block


@given(matrices())
def test_a_value_comes_back_within_half_a_step_of_its_block(case):
    weight, block = case
    quantised, scales = quantise(weight, block)
    assert quantised.dtype == FP8 and quantised.shape == weight.shape
    assert scales.dtype == torch.float32 and tuple(scales.shape) == grid(weight.shape, block)
    back = dequantise(quantised, scales, block)
    for row in range(weight.shape[0]):
        for column in range(weight.shape[1]):
            scale = float(scales[row // block[0], column // block[1]])
            value = float(weight[row, column])
            # E4M3: three binary digits after the leading one; below 2^-6 steps of 2^-9.
            half_a_step = max(abs(value) / 16, scale * 2.0**-10)
            assert abs(float(back[row, column]) - value) <= half_a_step * 1.00001


@settings(deadline=None)
@given(matrices())
def test_what_was_quantised_once_is_quantised_to_the_same_bits(case):
    weight, block = case
    once, scales = quantise(weight, block)
    again, scales_again = quantise(dequantise(once, scales, block).bfloat16(), block)
    assert torch.equal(again.view(torch.uint8), once.view(torch.uint8))
    assert torch.allclose(scales_again, scales, rtol=2.0**-8, atol=0)


def test_blocks_have_their_own_scales_and_zeros_stay_zeros():
    weight = torch.zeros(300, 130)
    weight[:128, :128], weight[299, 129] = 2.0, -1e-3
    quantised, scales = quantise(weight, (128, 128))
    assert scales.shape == (3, 2)
    assert scales[0, 0] == 2.0 / 448 and scales[2, 1] == pytest.approx(1e-3 / 448)
    assert scales[1].eq(1.0).all() and quantised[128:256].float().eq(0).all()
    assert torch.allclose(dequantise(quantised, scales, (128, 128)), weight)


def test_a_closed_form():
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).to(FP8)
    scales = torch.tensor([[10.0, 100.0]])
    assert dequantise(weight, scales, (2, 2)).tolist() == [[10, 20, 300], [40, 50, 600]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused(bad):
    weight = torch.ones(3, 3)
    weight[1, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        quantise(weight, (2, 2))


def make_folder(path, tensors, config=CONFIG):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return HuggingFaceFolder(path)


def test_a_folder_shows_plain_tensors_only(tmp_path):
    weight = torch.randn(200, 150)
    quantised, scales = quantise(weight, (128, 128))
    folder = make_folder(
        tmp_path / "fp8",
        {
            "a.weight": quantised,
            "a.weight_scale_inv": scales,
            "norm.weight": torch.ones(3),
            "lonely_scale_inv": torch.ones(1, 1),
        },
    )
    assert set(folder.files) == {"a.weight", "norm.weight", "lonely_scale_inv"}
    found = folder.tensor("a.weight")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, dequantise(quantised, scales, (128, 128)).bfloat16())
    assert folder.tensor("norm.weight").dtype == torch.float32


def test_a_config_for_plain_tensors_does_not_say_that_they_are_quantised():
    sizes = [(torch.float32, 4), (torch.bfloat16, 2)]
    assert plain_config(CONFIG, sizes) == {"torch_dtype": "float32"}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"a": torch.ones(2, 2).to(FP8)}, CONFIG, "a in FP8 and no scales"),
        (
            {"a": torch.ones(2, 2).to(FP8), "a_scale_inv": torch.ones(1, 1)},
            {},
            "a in FP8 and no scales",
        ),
        (
            {"a": torch.ones(2, 2).to(FP8), "a_scale_inv": torch.ones(2, 1)},
            CONFIG,
            r"a of shape \[2, 2\] has scales of shape \[2, 1\], expected \[1, 1\]",
        ),
        ({"a": torch.ones(2, 2), "a_scale_inv": torch.ones(1, 1)}, CONFIG, "a is a torch.float32"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path, tensors, config, message):
    with pytest.raises(RunError, match=message):
        make_folder(tmp_path / "bad", tensors, config).tensor("a")


@pytest.mark.parametrize(
    "change",
    [{"quant_method": "awq"}, {"fmt": "e5m2"}, {"weight_block_size": None}],
)
def test_another_quantisation_is_refused(change):
    found = {**CONFIG["quantization_config"], **change}
    with pytest.raises(RunError, match="only fp8 e4m3 in blocks can be read"):
        described({"quantization_config": found})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"] * 400}, "compressed-tensors"),
        ({"quant_method": "x" * 5000}, "xxx"),
        ({"bits": 4}, "without a quant_method"),
        ("awq", "without a quant_method"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"\[128\], expected two sizes"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "expected two sizes"),
        ({"quant_method": "fp8", "weight_block_size": "big" * 999}, "expected two sizes"),
    ],
)
def test_a_quantisation_is_refused_in_one_short_sentence(found, message):
    with pytest.raises(RunError, match=message) as caught:
        described({"quantization_config": found})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"bits": 4, "group_size": 32}}, "mlx"),
        ({"quantization": {"bits": 4, "group_size": 32}}, "mlx"),
        ({"compression_config": {"quant_method": "x", "ignore": ["y"] * 400}}, "compressed-tensor"),
        ({"quantization_config": {"quant_algo": "FP8", "producer": {}}}, "modelopt"),
    ],
)
def test_a_quantisation_that_has_another_key_is_known(config, method):
    with pytest.raises(RunError, match=rf"weights are quantised \({method}") as caught:
        described(config)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("found", [None, {}])
def test_no_quantisation_is_none(found):
    assert described({"quantization_config": found}) is None


def test_weights_become_what_transformers_would_make_of_them():
    block = CONFIG["quantization_config"]
    assert described({"quantization_config": block}).dtype == "bfloat16"
    both = {"torch_dtype": "bfloat16", "dtype": "float16", "quantization_config": block}
    assert described(both).dtype == "float16"
    with pytest.raises(RunError, match="dtype 'int8', expected one of"):
        described({"dtype": "int8", "quantization_config": block})
