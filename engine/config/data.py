"""Section ``data``: how batches reach the trainer ahead of their use."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.section import Section


class DataConfig(Section):
    """Who reads, packs and copies batches ahead. Changes no batch, only how long one waits."""

    loader: Literal["plain", "dali"] = Field(
        "plain",
        description="plain: a thread of the trainer; dali: NVIDIA DALI with a process of its own",
    )
    prefetch: int = Field(2, ge=1, description="batches made ready ahead of the one in use")
