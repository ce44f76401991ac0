"""What a model family is, and which families there are.

A family is one small declarative file under ``families/`` and one entry in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from engine.errors import RunError
from engine.models.weight_rules import Rule

HuggingFaceConfig = Mapping[str, Any]
"""The contents of a Hugging Face ``config.json``."""


@dataclass(frozen=True)
class Family:
    """One model family, described in both vocabularies.

    Attributes:
        model_type: the value of ``model_type`` in ``config.json``.
        architecture: keyword arguments of megatron's ``TransformerConfig`` that the config implies.
            Raises RunError for a config that megatron cannot express, or that lacks a key.
        rules: how its weights are named and joined.
    """

    model_type: str
    architecture: Callable[[HuggingFaceConfig], dict[str, Any]]
    rules: Callable[[HuggingFaceConfig], Sequence[Rule]]


FAMILIES = {
    name: f"engine.models.families.{name}"
    for name in (
        "deepseek_v2",
        "deepseek_v3",
        "glm4_moe",
        "llama",
        "mixtral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
    )
}
"""``model_type`` -> the module whose ``FAMILY`` describes it."""

_EVERYWHERE = ("vocab_size", "num_hidden_layers", "hidden_size")


def family_of(config: HuggingFaceConfig) -> Family:
    """The family of a ``config.json``.

    Raises:
        RunError: no family here has its ``model_type``.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise RunError(f"model: config.json says model_type {model_type!r}; known are: {known}")
    family: Family = import_module(FAMILIES[model_type]).FAMILY
    return replace(
        family,
        architecture=_naming_keys(family.architecture),
        rules=_naming_keys(family.rules),
    )


def _naming_keys(of: Callable[[HuggingFaceConfig], Any]) -> Callable[[HuggingFaceConfig], Any]:
    """``of``, with a RunError for a key that it, or every family, misses in ``config.json``."""

    def named(config: HuggingFaceConfig) -> Any:
        try:
            for key in _EVERYWHERE:
                config[key]
            return of(config)
        except KeyError as missing:
            raise RunError(f"model: config.json lacks the key {missing}") from None

    return named


def check_expressed(config: HuggingFaceConfig, known: Mapping[str, Any]) -> None:
    """Compare ``config`` with the only values that a family expresses; a missing key passes.

    Raises:
        RunError: a key has another value.
    """
    for key, value in known.items():
        if config.get(key, value) not in (value, None):
            raise RunError(f"model: config.json has {key} {config[key]!r}, only {value!r} is known")


def head_dim(config: HuggingFaceConfig) -> int:
    """Channels of an attention head: a key of its own, or the hidden size cut into heads."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
