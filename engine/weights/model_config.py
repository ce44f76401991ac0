"""Derive the ``config.json`` of a model in memory, with its head, from its source's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.models.family import HuggingFaceConfig
from engine.models.sequence_classifier import as_sequence_classifier
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.shards import unwrap


def model_config(chunks: Sequence[torch.nn.Module], source: HuggingFaceFolder) -> HuggingFaceConfig:
    """Return the ``config.json`` of the model that ``chunks`` are a part of.

    It is the source's own, unless the model is a sequence classification model.

    Args:
        chunks: a model's chunks on this rank.
        source: the folder that the model, or its trunk, came from.
    """
    if unwrap(chunks[0]).is_sequence_classifier:
        return as_sequence_classifier(source.config)
    return source.config
