"""Section ``monitoring``: what a run shows of itself besides its curves."""

from __future__ import annotations

from pydantic import Field

from engine.config.section import Section


class MonitoringConfig(Section):
    """Full samples as text in TensorBoard."""

    samples_every: int = Field(ge=1, description="steps between samples shown as text")
    samples: int = Field(ge=0, description="samples shown each time")
