"""Prints, as JSON, names and shapes of transformers' own tensors for every published config.

A process of its own: our platform for the CPU wraps what torch makes tensors with, and would make
real ones.
"""

from __future__ import annotations

import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from engine.models.published import NAMES, published


def shapes(name: str) -> dict[str, list[int]]:
    """By the names that a checkpoint has; the prediction head is not among them."""
    config = published(name)
    config.pop("quantization_config", None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    stored = revert_weight_conversion(model, model.state_dict())
    if config["tie_word_embeddings"]:
        del stored["lm_head.weight"]
    assert all(tensor.device.type == "meta" for tensor in stored.values())
    return {tensor: list(shape.shape) for tensor, shape in stored.items()}


if __name__ == "__main__":
    print(json.dumps({name: shapes(name) for name in NAMES}))
