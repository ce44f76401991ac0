"""The model that served.py trains and serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 64,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
"""A Qwen3-MoE; its large initial weights make its choices of words and experts clear."""


def write_model(folder: Path, dtype: str) -> Path:
    """Write it with random weights to ``folder``, as transformers does."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(1)
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**MODEL))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder
