"""Folders of small models with zeros for weights, in two shards, made without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.models.sharding import tensor_infos
from engine.weights.stored_folder import INDEX
from engine.weights.tensor_maps import maps_of

QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 52,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTRAL: dict[str, Any] = {
    **{key: value for key, value in QWEN3.items() if key != "head_dim"},
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
DEEPSEEK: dict[str, Any] = {
    **MIXTRAL,
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "kv_lora_rank": 8,
    "q_lora_rank": None,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.0,
}
BLOCK_FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]}
SIZE = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8}

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def tensors_of(config: Mapping[str, Any], dtype: str = "BF16") -> Tensors:
    """Name -> dtype and shape of all that the makers of the family would publish."""
    maps = maps_of(config)
    found: Tensors = {}
    for whole in tensor_infos(config):
        tensor_map = maps[whole.key, whole.expert]
        shapes = tensor_map.join.split_shape(whole.shape)
        found |= {n: (dtype, shape) for n, shape in zip(tensor_map.names, shapes, strict=True)}
    return found


def folder_of(
    path: Path, config: Mapping[str, Any] = QWEN3, tensors: Tensors | None = None, shards: int = 2
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    tensors = tensors_of(config) if tensors is None else tensors
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        held = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
        write_file(path / file, held)
        weight_map |= dict.fromkeys(held, file)
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return path


def write_file(file: Path, tensors: Tensors) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = SIZE[dtype]
        for axis in shape:
            size *= axis
        offsets = [end, end + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        end += size
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
