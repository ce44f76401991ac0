"""Configs of sequence classification models with one label, as transformers has them.

Such a model is the trunk of a language model and ``score.weight`` [1, hidden]; it has no output
layer over words, nor a multi-token prediction head. Its ``config.json`` says so by the name of its
architecture and by ``id2label``, from whose length transformers takes ``num_labels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import RunError
from engine.models.config_json import without_nulls

SCORE = "score.weight"
"""Of the layer hidden -> 1: its name in a Hugging Face folder, and its checkpoint key."""

_CLASSIFIER = "ForSequenceClassification"
_LANGUAGE_MODEL = "ForCausalLM"


def is_sequence_classifier(config: Mapping[str, Any]) -> bool:
    """Whether ``config``, the contents of a ``config.json``, describes such a model.

    Raises:
        RunError: it does, with another number of labels than one.
    """
    if not any(str(name).endswith(_CLASSIFIER) for name in config.get("architectures") or ()):
        return False
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)  # its default
    if labels != 1:
        raise RunError(
            f"model: config.json describes a sequence classification model with {labels} labels "
            "(id2label), expected 1"
        )
    return True


def as_sequence_classifier(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config.json`` of the sequence classification model on the trunk of ``config``.

    Raises:
        RunError: ``config`` describes such a model already, with another number of labels than one.
    """
    if is_sequence_classifier(config):
        return dict(config)
    found = {
        **config,
        "architectures": [_architecture(config)],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    if config.get("num_nextn_predict_layers"):
        found["num_nextn_predict_layers"] = 0
    return found


def as_built(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``config`` as families read it: without nulls, and of a classifier without a head.

    A sequence classification model's config may name parts that it has not: transformers' config
    classes fill in a prediction head, and keep whether the language model's output layer was tied.

    Raises:
        RunError: see :func:`without_nulls`.
    """
    config = without_nulls(config)
    if not is_sequence_classifier(config):
        return config
    return {**config, "tie_word_embeddings": False, "num_nextn_predict_layers": 0}


def language_model_class(config: Mapping[str, Any]) -> str:
    """Return the class of the language models of a ``model_type``: ``Qwen3MoeForCausalLM``."""
    words = str(config.get("model_type", "")).split("_")
    return "".join(word.capitalize() for word in words) + _LANGUAGE_MODEL


def _architecture(config: Mapping[str, Any]) -> str:
    """Return ``Qwen3MoeForSequenceClassification`` for Qwen3-MoE."""
    names = [*map(str, config.get("architectures") or ()), language_model_class(config)]
    found = next(name for name in names if name.endswith(_LANGUAGE_MODEL))
    return found.removesuffix(_LANGUAGE_MODEL) + _CLASSIFIER
