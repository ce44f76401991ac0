"""Section ``checkpoint``: what a killed run goes on from."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class CheckpointConfig(Section):
    """How often the state is saved, how, and how many states stay."""

    every: int = Field(ge=1, description="steps between checkpoints; the last step has one anyway")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay on disk")
    asynchronous: bool = Field(
        True, description="train on while a child process of each rank writes its files"
    )
    write_seconds: float = Field(
        3600.0, gt=0, description="limit on writing one checkpoint, after which the run stops"
    )
