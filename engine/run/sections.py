"""Sections of a configuration that choose an algorithm by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from engine.algorithms.algorithm import Algorithm
from engine.algorithms.table import ALGORITHMS
from engine.config.choice import Choice


class AlgorithmConfig(Choice):
    """The algorithm of reinforcement learning, and its options; each has its paper's defaults."""

    table: ClassVar[Mapping[str, str]] = ALGORITHMS
    attribute: ClassVar[str] = "ALGORITHM"
    chosen: Algorithm = Field(description="made of the options")
