"""The :class:`Family` of a model: how its config and its weights become megatron's.

A family is one small declarative file under ``families/`` and one entry in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from engine.errors import RunError
from engine.models.config_json import quoted
from engine.models.sequence_classifier import as_built
from engine.models.weight_rules import Rule

HuggingFaceConfig = Mapping[str, Any]
"""The contents of a Hugging Face ``config.json``."""


@dataclass(frozen=True)
class FeedForwardNames:
    """Hugging Face's names inside a layer for a SwiGLU, or for each of its experts."""

    block: str = "mlp."
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


USUAL_NAMES = FeedForwardNames()


@dataclass(frozen=True)
class Family:
    """One model family: megatron's arguments and weight rules, from Hugging Face's config.

    Attributes:
        model_type: the value of ``model_type`` in ``config.json``.
        architecture: keyword arguments of megatron's ``TransformerConfig`` that the config implies.
            Raises RunError for a config that megatron cannot express, or that lacks a key.
        rules: how its weights are named and joined.
        feed_forward: how its makers call the matrices of an expert.
    """

    model_type: str
    architecture: Callable[[HuggingFaceConfig], dict[str, Any]]
    rules: Callable[[HuggingFaceConfig], Sequence[Rule]]
    feed_forward: FeedForwardNames = USUAL_NAMES


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

_EVERYWHERE = ("vocab_size", "num_hidden_layers", "hidden_size", "max_position_embeddings")


def family_of(config: HuggingFaceConfig) -> Family:
    """Return the family of a ``config.json``.

    Raises:
        RunError: no family here has its ``model_type``.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        if model_type is None:
            raise RunError(f"model: config.json has no model_type; known are: {known}")
        raise RunError(
            f"model: config.json says model_type {quoted(model_type)}; known are: {known}"
        )
    family: Family = import_module(FAMILIES[model_type]).FAMILY
    return replace(
        family,
        architecture=_naming_keys(family.architecture),
        rules=_naming_keys(family.rules),
    )


def _naming_keys(of: Callable[[HuggingFaceConfig], Any]) -> Callable[[HuggingFaceConfig], Any]:
    """Return ``of`` with a RunError for the keys that it, or every family, misses in a config."""

    def named(config: HuggingFaceConfig) -> Any:
        found, missing = _told(of, as_built(config))
        if missing:
            keys = ", ".join(map(repr, missing))
            raise RunError(f"model: config.json lacks the key{'s' * (len(missing) > 1)} {keys}")
        return found

    return named


def _told(
    of: Callable[[HuggingFaceConfig], Any], config: HuggingFaceConfig
) -> tuple[Any, list[str]]:
    """Return what ``of`` makes of ``config``, and the keys that it misses.

    To find the next one, a 1 stands in for each that is missing.

    Raises:
        RunError: ``of`` does, of a config that lacks no key.
    """
    missing = [key for key in _EVERYWHERE if key not in config]
    while True:
        try:
            return of({**config, **dict.fromkeys(missing, 1)}), missing
        except KeyError as error:
            key = str(error.args[0])
            if key in missing:  # it stands elsewhere: inside of rotary settings
                return None, missing
            missing.append(key)
        except (RunError, ValueError, TypeError, ArithmeticError):
            if not missing:
                raise
            return None, missing  # it may well be the 1 that is wrong


def check_expressed(config: HuggingFaceConfig, known: Mapping[str, Any]) -> None:
    """Refuse a ``config`` with other values than a family expresses; a missing key passes.

    Raises:
        RunError: a key has another value.
    """
    others = [key for key, value in known.items() if config.get(key, value) not in (value, None)]
    if others:
        said = "; ".join(
            f"{key} {quoted(config[key])}, only {known[key]!r} is known" for key in others
        )
        raise RunError(f"model: config.json has {said}")
