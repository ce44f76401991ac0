"""``config.json`` of models as published, by name; README.md says where each comes from."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

NAMES = (
    "DeepSeek-V3",
    "Llama-3.1-8B",
    "Llama-3.3-70B",
    "Qwen2.5-1.5B",
    "Qwen2.5-7B",
    "Qwen2.5-14B",
    "Qwen2.5-32B",
    "Qwen3-30B-A3B",
    "Qwen3-235B-A22B",
)


def published(name: str) -> dict[str, Any]:
    """The contents of the ``config.json`` of ``name``, one of :data:`NAMES`."""
    text = (files(__name__) / f"{name}.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    return config
