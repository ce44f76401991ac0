"""What makers put into their folders: copies, buffers, code, another dtype than stated."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conversions import to_hugging_face, to_megatron, verified
from random_models import MIXTURES, all_tensors, random_folder, write_shards

from engine.errors import RunError
from engine.weights.hugging_face import companions

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def rewritten(folder, to, change):
    """A copy of ``folder`` with what ``change`` makes of its tensors."""
    tensors = all_tensors(folder)
    change(tensors)
    return write_shards(to, json.loads((folder / "config.json").read_text()), tensors, 3)


def there_and_back(source, folder):
    back = to_hugging_face(to_megatron(source, folder / "there", 2, 2), folder / "back")
    verified(source, back)
    before, after = all_tensors(source), all_tensors(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return back


def fused(source, to):
    """The folder as transformers 5 saves it if it is told not to name the experts one by one."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(source, to)
    for file in to.glob("*.safetensors*"):
        file.unlink()
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(to, save_original_format=False, max_shard_size="100kB")
    for name in companions(source):
        shutil.copyfile(source / name, to / name)
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in all_tensors(to))
    return to


@pytest.mark.slow  # transformers
@pytest.mark.parametrize("model", [name for name in MIXTURES if "head" not in name])
def test_fused_experts_are_read_as_published_ones(folders, tmp_path, model):
    source = folders[model]
    there = to_megatron(fused(source, tmp_path / "fused"), tmp_path / "there", 2, 2, 2)
    verified(tmp_path / "fused", there)
    verified(source, there)
    back = to_hugging_face(there, tmp_path / "back")
    before, after = all_tensors(source), all_tensors(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_tied_output_layer_that_is_stored_all_the_same(folders, tmp_path):
    source = rewritten(
        folders["qwen2, tied"],
        tmp_path / "source",
        lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}),
    )
    assert HEAD in all_tensors(there_and_back(source, tmp_path))


def test_a_tied_output_layer_that_is_no_copy(folders, tmp_path):
    source = rewritten(
        folders["qwen2, tied"],
        tmp_path / "source",
        lambda tensors: tensors.update({HEAD: tensors[EMBEDDING] + 1}),
    )
    with pytest.raises(RunError, match=r"lm_head\.weight cannot make embedding.*copies of one"):
        to_megatron(source, tmp_path / "there")


@pytest.mark.parametrize("model", ["glm4_moe", "deepseek_v3"])
def test_a_prediction_head_without_copies_of_embedding_and_output_layer(folders, tmp_path, model):
    def without_copies(tensors):
        del tensors["model.layers.3.embed_tokens.weight"]
        del tensors["model.layers.3.shared_head.head.weight"]

    folder = folders[f"{model} with prediction head"]
    there_and_back(rewritten(folder, tmp_path / "source", without_copies), tmp_path)


@pytest.mark.parametrize("name", [EMBEDDING, HEAD])
def test_copies_in_a_prediction_head_stand_for_nothing(folders, tmp_path, name):
    folder = folders["deepseek_v3 with prediction head"]
    source = rewritten(folder, tmp_path / "source", lambda tensors: tensors.pop(name))
    with pytest.raises(RunError, match=f"lacks 1 tensors that its family needs, first {name}"):
        to_megatron(source, tmp_path / "there")


def test_a_tied_model_that_stores_its_output_layer_alone(folders, tmp_path):
    def only_head(tensors):
        tensors[HEAD] = tensors.pop(EMBEDDING)

    there_and_back(rewritten(folders["qwen2, tied"], tmp_path / "source", only_head), tmp_path)


def test_a_prediction_head_that_another_tool_left_out(folders, tmp_path):
    def without_head(tensors):
        for name in [name for name in tensors if name.startswith("model.layers.3.")]:
            del tensors[name]

    folder = folders["deepseek_v3 with prediction head"]
    source = rewritten(folder, tmp_path / "source", without_head)
    with pytest.raises(RunError, match=r"lacks .* set num_nextn_predict_layers to 0"):
        to_megatron(source, tmp_path / "there")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": 0}))
    there_and_back(source, tmp_path)


def test_buffers_that_are_computed_anew_stay_behind(folders, tmp_path):
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    folder = folders["llama, stretched"]
    source = rewritten(
        folder, tmp_path / "source", lambda tensors: tensors.update({name: torch.ones(8)})
    )
    back = to_hugging_face(to_megatron(source, tmp_path / "there"), tmp_path / "back")
    assert all_tensors(back).keys() == all_tensors(folder).keys()


def test_code_and_license_travel_and_the_model_card_stays(mixture, tmp_path):
    source = shutil.copytree(mixture, tmp_path / "source")
    more = ("modeling_own.py", "tiktoken.model", "LICENSE")
    stays = ("README.md", ".gitattributes", "rust_model.ot", "training.log", "pytorch_model.bin")
    for name in (*more, *stays):
        (source / name).write_text(name)
    back = there_and_back(source, tmp_path)
    for name in companions(source):
        assert (back / name).read_bytes() == (source / name).read_bytes()
    assert {*more, "config.json", "tokenizer.json"} <= set(companions(source))
    assert not any((back / name).exists() for name in stays)
    (back / "modeling_own.py").write_text("changed")
    with pytest.raises(RunError, match=r"modeling_own\.py .* differ"):
        verified(source, back)


def test_config_says_the_dtype_that_weights_have(tmp_path):
    source = random_folder(tmp_path / "source", "qwen3", torch.float32)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    back = there_and_back(source, tmp_path)
    assert json.loads((back / "config.json").read_text())["dtype"] == "float32"
