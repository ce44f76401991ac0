"""What made a stored step: its settings by dotted key, and how two of them differ, in words.

``made_by.json`` lies in the folder of every rollout and evaluation, written before its first group:

    keys of the configuration    how answers were sampled and rewarded (``rollout.temperature``);
                                 of files (``model``, ``prompts.train``) the digest; so of the
                                 module of a reward of one's own (``rewards.mine (code)``)
    stop_token_ids               what ends an answer
    prompts.position             of a rollout: how many prompts of the set were taken before it
    weights.version              updates before the weights that sampled it
    weights.history              digest of all that they were trained on, see ``lineage``
    trained_with.*               settings of the update that made these weights: algorithm,
                                 optimizer, layout, precision, kernels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.choice import CODE

Settings = Mapping[str, Any]
"""Dotted key -> JSON value."""

TRAINED_WITH, WEIGHTS, POSITION = "trained_with.", "weights.", "prompts.position"
ROUNDING = tuple(
    f"{TRAINED_WITH}{key}"
    for key in (
        "layout.",
        "training.tokens_per_microbatch",
        "training.logits_chunk_tokens",
        "training.recompute",
        "training.overlap_",
        "training.bucket_parameters",
        "training.dispatcher",
        "training.grouped_experts",
    )
)
"""Beginnings of keys that change the weights of an update by rounding alone."""
FILES = ("model", "prompts.train", "prompts.held_out")
"""Keys whose values are digests."""
_NONE = "(none)"


@dataclass(frozen=True)
class Difference:
    """A setting that made a stored step and is another one now; None: it has no such setting."""

    key: str
    stored: Any
    wanted: Any

    def __str__(self) -> str:
        """A clause behind the step's name: ``was sampled with KEY 1.0, this run asks for 0.7``."""
        if self.key.startswith(TRAINED_WITH):
            return f"was sampled by weights trained with {self._trained_with()}"
        if self.key in FILES or self.key.endswith(CODE):
            return f"was sampled with another {self.key}"
        if self.key == POSITION:
            return (
                f"was sampled from place {self.stored} of the prompts on, this start has come to "
                f"place {self.wanted}"
            )
        if self.key.startswith(WEIGHTS):
            return "was sampled by other weights than this start has"
        stored, wanted = _shown(self.stored), _shown(self.wanted)
        return f"was sampled with {self.key} {stored}, this run asks for {wanted}"

    def _trained_with(self) -> str:
        key = self.key.removeprefix(TRAINED_WITH)
        if key.endswith(CODE):
            return f"another {key}"
        return f"{key} {_shown(self.stored)}, this run has {_shown(self.wanted)}"


def _shown(value: Any) -> Any:
    return _NONE if value is None else value


def differences(stored: Settings, wanted: Settings) -> list[Difference]:
    """Return what differs, settings of the configuration first, the history of weights last."""
    keys = [*wanted, *(key for key in stored if key not in wanted)]
    found = [
        Difference(key, stored.get(key), wanted.get(key))
        for key in keys
        if stored.get(key) != wanted.get(key)
    ]
    return sorted(found, key=lambda difference: difference.key.startswith(WEIGHTS))


def without(settings: Settings, beginnings: tuple[str, ...]) -> Settings:
    """Return ``settings`` without the keys that begin so."""
    return {key: value for key, value in settings.items() if not key.startswith(beginnings)}
