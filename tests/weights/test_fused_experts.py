"""All experts of a layer in one tensor: each expert's matrices are found in it, and no other."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import RunError
from engine.weights.hugging_face import HuggingFaceFolder

GATE_UP, DOWN = "model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"


def folder_of(path, tensors, model_type="qwen3_moe", **config):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    save_file(tensors, path / "model.safetensors")
    return HuggingFaceFolder(path)


@pytest.mark.parametrize(
    ("model_type", "block", "gate", "up", "down"),
    [
        ("qwen3_moe", "mlp.", "gate_proj", "up_proj", "down_proj"),
        ("mixtral", "block_sparse_moe.", "w1", "w3", "w2"),
    ],
)
def test_each_experts_matrices_go_by_their_published_names(
    tmp_path, model_type, block, gate, up, down
):
    gate_up, downs = torch.randn(3, 10, 4), torch.randn(3, 4, 5)
    router, elsewhere = torch.randn(3, 4), torch.randn(2, 2)
    stored = {
        GATE_UP: gate_up,
        DOWN: downs,
        "model.layers.1.mlp.gate.weight": router,
        "model.layers.0.mlp.gate.weight": elsewhere,  # a layer without fused experts
    }
    folder = folder_of(tmp_path / "fused", stored, model_type)
    experts = f"model.layers.1.{block}experts."
    for expert in range(3):
        for name, expected in (
            (gate, gate_up[expert, :5]),
            (up, gate_up[expert, 5:]),
            (down, downs[expert]),
        ):
            found = folder.tensor(f"{experts}{expert}.{name}.weight")
            assert found.equal(expected) and found.is_contiguous()
            assert folder.described(f"{experts}{expert}.{name}.weight").shape == expected.shape
    assert folder.tensor(f"model.layers.1.{block}gate.weight").equal(router)
    assert folder.tensor("model.layers.0.mlp.gate.weight").equal(elsewhere)
    assert len(folder.files) == 3 * 3 + 2 and GATE_UP not in folder.files
    folder.check_shards()


@pytest.mark.parametrize("tensor", [torch.ones(4, 4), torch.ones(2, 4, 4).to(torch.float8_e4m3fn)])
def test_another_form_is_refused(tmp_path, tensor):
    with pytest.raises(RunError, match=rf"{GATE_UP} is F.* expected all experts of a layer"):
        _ = folder_of(tmp_path / "odd", {GATE_UP: tensor}).files


def test_an_expert_that_is_there_twice_is_refused(tmp_path):
    name = "model.layers.1.mlp.experts.1.down_proj.weight"
    stored = {DOWN: torch.ones(2, 3, 3), name: torch.ones(3, 3)}
    with pytest.raises(RunError, match=rf"{name} is stored twice"):
        _ = folder_of(tmp_path / "twice", stored).files
