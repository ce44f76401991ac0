"""Hugging Face folders with random weights and odd sizes, in several shards, tokenizer included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_GROUPED = {
    "vocab_size": 67,
    "hidden_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 58,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "tie_word_embeddings": False,
}
_LATENT = {
    **_GROUPED,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "q_lora_rank": 22,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "moe_intermediate_size": 26,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1,
}
_STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 200.0,
    "factor": 5.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 6.0,
    "original_max_position_embeddings": 90,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 32.0,
    "original_max_position_embeddings": 16,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        **_GROUPED,
        "model_type": "qwen3_moe",
        "head_dim": 10,
        "num_experts": 7,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 26,
        "norm_topk_prob": True,
    },
    "deepseek_v3 with prediction head": {**_LATENT, "model_type": "deepseek_v3", "vocab_size": 66},
    "deepseek_v2": {
        **_LATENT,
        "model_type": "deepseek_v2",
        "hidden_size": 42,  # transformers wants a multiple of the heads
        "rope_parameters": _YARN,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "num_experts_per_tok": 3,
        "norm_topk_prob": False,
        "num_nextn_predict_layers": 0,
    },
    "glm4_moe with prediction head": {
        **_GROUPED,
        "model_type": "glm4_moe",
        "head_dim": 12,
        "rope_parameters": {**_GROUPED["rope_parameters"], "partial_rotary_factor": 0.5},
        "attention_bias": True,
        "use_qk_norm": True,
        "moe_intermediate_size": 26,
        "first_k_dense_replace": 1,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "num_nextn_predict_layers": 1,
    },
    "mixtral, tied": {
        **_GROUPED,
        "model_type": "mixtral",
        "hidden_size": 48,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "tie_word_embeddings": True,
    },
    "qwen3": {**_GROUPED, "model_type": "qwen3", "head_dim": 12},
    "llama, stretched": {
        **_GROUPED,
        "model_type": "llama",
        "hidden_size": 42,
        "head_dim": 16,
        "rope_parameters": _STRETCHED,
    },
    "qwen2, tied": {
        **_GROUPED,
        "model_type": "qwen2",
        "hidden_size": 60,
        "vocab_size": 65,
        "tie_word_embeddings": True,
    },
}
"""Name of the case -> contents of its ``config.json``; every family is there."""

MIXTURES = [name for name, config in CONFIGS.items() if any("experts" in key for key in config)]

COMPANIONS = {
    "tokenizer.json": '{"version": "1.0"}',
    "tokenizer_config.json": '{"eos_token": "é"}',
    "generation_config.json": '{"eos_token_id": 1}',
    "chat_template.jinja": "{{ messages }}\n",
}


def random_folder(
    folder: Path, name: str, dtype: torch.dtype = torch.float32, shards: int = 3, **sizes: Any
) -> Path:
    """Write the folder; ``sizes`` replace keys of the config."""
    config = {**CONFIGS[name], **sizes}
    tensors = random_tensors(folder, config, dtype)
    if config.get("num_nextn_predict_layers"):
        tensors |= prediction_head(tensors, config)
    return write_shards(folder, config, tensors, shards)


def random_tensors(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """transformers' tensors, as it writes them, with values that let every part matter."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(folder)  # it also names the experts one by one
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    config.update(json.loads((folder / "config.json").read_text()))
    for name, tensor in tensors.items():
        tensor.normal_(1.0, 0.2) if "norm" in name else tensor.normal_(0.0, 0.25)
    bias = "e_score_correction_bias"  # published checkpoints keep it in float32
    return {n: t if n.endswith(bias) else t.to(dtype) for n, t in tensors.items()}


def prediction_head(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of one depth of multi-token prediction, which transformers does not write."""
    last = f"model.layers.{config['num_hidden_layers'] - 1}."
    here = f"model.layers.{config['num_hidden_layers']}."
    hidden, dtype = config["hidden_size"], tensors[last + "input_layernorm.weight"].dtype
    found = {
        here + name.removeprefix(last): torch.randn_like(tensor) * 0.2
        for name, tensor in tensors.items()
        if name.startswith(last)
    }
    for name in ("enorm", "hnorm", "shared_head.norm"):
        found[f"{here}{name}.weight"] = torch.randn(hidden).to(dtype)
    found[here + "eh_proj.weight"] = torch.randn(hidden, 2 * hidden).to(dtype)
    found[here + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    found[here + "shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return found


def write_shards(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], shards: int
) -> Path:
    """Deal the tensors out over so many files, so that parts of one tensor lie in several."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name, content in COMPANIONS.items():
        (folder / name).write_text(content)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        names = sorted(tensors)[shard::shards]
        save_file({name: tensors[name].contiguous() for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def change(folder: Path, name: str, what: Callable[[Tensor], Tensor | None]) -> Path:
    """Rewrite the shard that holds ``name`` with ``what`` made of it; None leaves it out."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = folder / index["weight_map"][name]
    tensors = load_file(file)
    changed = what(tensors.pop(name))
    if changed is not None:
        tensors[name] = changed
    save_file(tensors, file)
    return file


def all_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, by the library alone; a name in two files fails."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        held = load_file(file)
        assert not held.keys() & found.keys()
        found |= held
    return found
