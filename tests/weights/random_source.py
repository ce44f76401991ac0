"""A Hugging Face folder of random weights, made by no code that trains or exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.models.sharding import tensor_infos
from engine.weights.tensor_maps import maps_of


def random_model(folder: Path, model: dict[str, Any], dtype: str) -> Path:
    """Write ``folder``: config, tokenizer and one file of weights of ``dtype``."""
    folder.mkdir(parents=True)
    config = {**model, "dtype": dtype}
    torch.manual_seed(11)
    maps, tensors = maps_of(config), {}
    for info in tensor_infos(config):
        kind = torch.float32 if info.kind.float32 else getattr(torch, dtype)
        whole = torch.randn(info.shape).to(kind)
        named = maps[info.key, info.expert].to_hugging_face(whole)
        tensors |= {name: part.contiguous() for name, part in named.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("prose")
    return folder
