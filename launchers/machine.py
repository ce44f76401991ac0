"""Count this machine's GPUs, and check that it can run a configuration."""

from __future__ import annotations

from typing import Any


def count_gpus() -> int:
    """Return how many GPUs torch can compute on here."""
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def check_machine(config: Any) -> None:
    """Check that this machine can compute what the section ``training`` asks for.

    Raises:
        RunError: it cannot; names the key, what it needs and what was found.
    """
    if (training := getattr(config, "training", None)) is not None:
        from engine.models.transformer_config_args import check_machine as check

        check(training)
