"""The algorithms that a configuration can name: ``algorithm: {name: grpo}``."""

from __future__ import annotations

ALGORITHMS = {
    "grpo": "engine.algorithms.grpo",
    "dapo": "engine.algorithms.dapo",
    "dr_grpo": "engine.algorithms.dr_grpo",
    "gspo": "engine.algorithms.gspo",
    "cispo": "engine.algorithms.cispo",
    "rloo": "engine.algorithms.rloo",
    "reinforce_plus_plus": "engine.algorithms.reinforce_plus_plus",
}
"""Name -> module, whose class ``ALGORITHM`` is an ``engine.algorithms.algorithm.Algorithm``."""
