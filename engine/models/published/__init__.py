"""Configs of models as published, and a recommended layout for each; README.md has sources."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from engine.config.layout import LayoutConfig

RECOMMENDED = {
    # 61 layers on 16 stages: the first one embeds, the last one has two output layers.
    "DeepSeek-V3": LayoutConfig(
        processes=512, pp=16, ep=32, first_stage_layers=3, last_stage_layers=2
    ),
    "Llama-3.1-8B": LayoutConfig(processes=8, tp=2),
    "Llama-3.3-70B": LayoutConfig(processes=64, tp=8, pp=4),
    "Qwen2.5-1.5B": LayoutConfig(processes=8),
    "Qwen2.5-7B": LayoutConfig(processes=8, tp=2),
    "Qwen2.5-14B": LayoutConfig(processes=16, tp=4),
    "Qwen2.5-32B": LayoutConfig(processes=32, tp=8),
    "Qwen3-30B-A3B": LayoutConfig(processes=16, tp=2, ep=16),
    "Qwen3-235B-A22B": LayoutConfig(
        processes=128, tp=4, pp=8, ep=16, first_stage_layers=11, last_stage_layers=11
    ),
}
"""Name -> the smallest layout of 80 GB GPUs that trains all weights with room for activations.

Derived, not measured: bfloat16 weights and float32 gradients of a rank, and its share of 12 bytes a
parameter for the distributed optimizer, come to less than half of a GPU.
"""

NAMES = tuple(RECOMMENDED)


def published(name: str) -> dict[str, Any]:
    """Return the contents of the ``config.json`` of ``name``, one of :data:`NAMES`."""
    text = (files(__name__) / f"{name}.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    return config
