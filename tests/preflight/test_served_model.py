"""What servers could not sample, or would compute otherwise, is said before they start."""

from __future__ import annotations

import pytest
from model_folders import BLOCK_FP8, DEEPSEEK, MIXTRAL, QWEN3, folder_of, tensors_of, write_file

from engine.config.servers import ServersConfig
from engine.config.training import TrainingConfig
from engine.preflight import served_model
from engine.preflight.sections import Sections
from engine.weights.stored_folder import INDEX, WHOLE

SERVERS = ServersConfig(count=1, max_total_tokens=64)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


LLAMA = {**QWEN3, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
GLM = {
    **{key: value for key, value in DEEPSEEK.items() if "_rank" not in key},
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "partial_rotary_factor": 0.34,
}


def found(folder, dtype="float32", servers=SERVERS):
    training = TrainingConfig(dtype=dtype, tokens_per_microbatch=8)
    sections = {"model": folder, "training": training, "servers": servers}
    return list(served_model.check(Sections(sections, print)))


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(served_model, "has_nvidia_device", lambda: False)


def with_rope(config, **rope):
    return {**config, "rope_scaling": rope}


@pytest.mark.parametrize(
    "config",
    [
        QWEN3,
        MIXTRAL,
        with_rope(QWEN3, **YARN),
        with_rope(QWEN3, **YARN, attn_factor=0.8782488562869419),
        with_rope(QWEN3, **YARN, mscale=0.7, mscale_all_dim=0.5),
        with_rope(QWEN3, **YARN, mscale=0.7),
        with_rope(QWEN3, **YARN, attention_factor=1.1386294361119891),
        with_rope(QWEN3, rope_type="linear", factor=4.0),
        with_rope(QWEN3, **YARN, mscale=None, mscale_all_dim=None, attention_factor=None),
        with_rope(QWEN3, rope_type="default", factor=None),
        with_rope({**QWEN3, "max_position_embeddings": 64}, **YARN),
        {**MIXTRAL, "rope_theta": 3e5},
        {**LLAMA, "rope_theta": None, "rope_parameters": {"rope_theta": 3e5}},
        GLM,
    ],
)
def test_what_servers_compute_alike_is_passed(tmp_path, config):
    assert found(folder_of(tmp_path, config)) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (with_rope(MIXTRAL, **YARN), "leave out rope_type 'yarn'"),
        (with_rope(QWEN3, rope_type="linear", factor=4), "want factor 4.0 for 4"),
        (with_rope(QWEN3, **YARN, attention_factor=1.0), "write attn_factor 0.8782488563"),
        (with_rope(QWEN3, **YARN, mscale=0.7, mscale_all_dim=0), "by 1.09704, the trainer"),
        (with_rope(QWEN3, **YARN, extrapolation_factor=0.5), "extrapolation_factor"),
        (with_rope(QWEN3, **YARN | {"factor": 3.0}), "rotation of 96 positions (original_max"),
        (with_rope({**QWEN3, "max_position_embeddings": 129}, **YARN), "is 129: set it to 128"),
        (with_rope(QWEN3, **YARN, attn_factor=None), "no null for attn_factor in the rotary sett"),
        (with_rope(QWEN3, **YARN, beta_slow=None), "no null for beta_slow in the rotary settings"),
        ({**QWEN3, "rope_parameters": {"rope_theta": None}}, "no null for rope_theta in the rota"),
        ({**LLAMA, "rope_theta": None}, "no null for rope_theta in the rotary settings"),
        ({**GLM, "partial_rotary_factor": 0.51}, "0.51 of 6 channels is 3, an odd number"),
        ({**MIXTRAL, "rope_theta": 700.5}, "cut rope_theta 700.5 to a whole number"),
        ({**QWEN3, "quantization_config": BLOCK_FP8}, "and none is: delete quantization_config"),
        ({**QWEN3, "architectures": None}, "by which servers choose the model's class"),
        ({**QWEN3, "architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1},
         "expected a language model"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_no_server_does_is_refused(tmp_path, config, words, dtype):
    (one,) = found(folder_of(tmp_path, config), dtype)
    assert words in one.says and one.refuses


def test_the_advice_is_right(tmp_path):
    config = with_rope(QWEN3, **YARN, attn_factor=0.8782488563)
    assert found(folder_of(tmp_path, config)) == []


FP8_WEIGHT = "model.layers.0.self_attn.o_proj.weight"
IN_FP8 = {
    **tensors_of(QWEN3),
    FP8_WEIGHT: ("F8_E4M3", (24, 24)),
    f"{FP8_WEIGHT}_scale_inv": ("F32", (2, 2)),
}


@pytest.mark.parametrize(
    ("config", "tensors", "words"),
    [
        (DEEPSEEK, None, "no latent attention"),
        ({**QWEN3, "quantization_config": BLOCK_FP8}, IN_FP8, "cannot compute in block FP8"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused_or_said(tmp_path, config, tensors, words, monkeypatch):
    folder = folder_of(tmp_path, config, tensors)
    (one,) = found(folder)
    assert words in one.says and one.refuses
    (meant_for_gpus,) = found(folder, "bfloat16")
    assert words in meant_for_gpus.says and not meant_for_gpus.refuses
    assert found(folder, servers=None) == []
    monkeypatch.setattr(served_model, "has_nvidia_device", lambda: True)
    assert found(folder) == []


def test_fused_experts_are_trained_from_but_not_served(tmp_path):
    tensors = tensors_of(MIXTRAL)
    fused = {name: kind for name, kind in tensors.items() if "block_sparse_moe" not in name}
    for layer in range(2):
        block = f"model.layers.{layer}.mlp."
        fused[f"{block}gate.weight"] = ("BF16", (4, 24))
        fused[f"{block}experts.gate_up_proj"] = ("BF16", (4, 80, 24))
        fused[f"{block}experts.down_proj"] = ("BF16", (4, 24, 40))
    (one,) = found(folder_of(tmp_path, MIXTRAL, fused))
    assert "saved as one tensor a layer" in one.says and "tools.convert" in one.says


@pytest.mark.parametrize("config", [MIXTRAL, QWEN3], ids=["mixtral", "qwen3"])
def test_a_tied_output_layer_is_stored_for_servers_that_tie_none(tmp_path, config):
    tied = {**config, "tie_word_embeddings": True}
    tensors = tensors_of(tied)
    assert "lm_head.weight" not in tensors
    told = found(folder_of(tmp_path / "once", tied, tensors))
    assert ["holds no lm_head.weight" in one.says for one in told] == [True] * (config is MIXTRAL)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    assert found(folder_of(tmp_path / "twice", tied, tensors)) == []
    del tensors["model.embed_tokens.weight"]
    (one,) = found(folder_of(tmp_path / "by the other name", tied, tensors))
    assert "from model.embed_tokens.weight alone: store it by that name" in one.says


@pytest.mark.parametrize(("name", "told"), [("lm_head.weight", True), ("optimizer.step", False)])
def test_a_file_that_servers_alone_would_read_is_refused(tmp_path, name, told):
    folder = folder_of(tmp_path, QWEN3, shards=1)
    write_file(folder / "ema.safetensors", {name: ("BF16", (52, 24))})
    assert found(folder) == []  # the index says which files count
    (folder / INDEX).unlink()
    (folder / "model-00001-of-00001.safetensors").rename(folder / WHOLE)
    said = [one.says for one in found(folder)]
    assert len(said) == told
    assert all("would take lm_head.weight from ema.safetensors beside" in one for one in said)
    (folder / "ema.safetensors").write_bytes(b"")
    (one,) = found(folder)
    assert "ema.safetensors cannot be read as safetensors: it has 0 bytes" in one.says


def test_a_folder_that_is_wrong_itself_is_told_by_its_own_check(tmp_path):
    assert found(tmp_path) == []
    assert found(folder_of(tmp_path, {**QWEN3, "model_type": "gpt2"}, {})) == []
    awq = {**QWEN3, "quantization_config": {"quant_method": "awq"}}
    assert found(folder_of(tmp_path, awq)) == []
