"""The weight rules of a family, written out for what a folder holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from engine.errors import RunError
from engine.models.families.layer_rules import prediction_depths
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.weight_rules import TensorMap, expand
from engine.weights.hugging_face import HuggingFaceFolder

MapKey = tuple[str, int | None]
"""Checkpoint key and, for a tensor that exists once an expert, the expert."""


def maps_of(
    config: HuggingFaceConfig, stored: Collection[str] | None = None
) -> dict[MapKey, TensorMap]:
    """All tensors of the model, each Hugging Face name in exactly one of them.

    Args:
        config: contents of ``config.json``.
        stored: names of the tensors of a checkpoint: of what is held in copies, those it has. None
            for those that the makers of the family publish.

    Raises:
        RunError: the family is not known, ``config.json`` lacks a key, or two rules use the same
            tensor.
    """
    maps = expand(family_of(config).rules(config))
    if stored is not None:
        maps = {key: tensor_map.as_stored(stored) for key, tensor_map in maps.items()}
    used: set[str] = set()
    for tensor_map in maps.values():
        for name in tensor_map.names:
            if name in used:
                raise RunError(f"model: two weight rules of the family use {name}")
            used.add(name)
    return maps


def maps_of_folder(folder: HuggingFaceFolder) -> dict[MapKey, TensorMap]:
    """As :func:`maps_of`, for a folder, which may hold no weights at all."""
    return maps_of(folder.config, folder.names)


def check_folder(folder: HuggingFaceFolder, maps: Iterable[TensorMap]) -> None:
    """Refuse a folder whose tensors are not those of its family; see :func:`check_names`."""
    needed, held = {name for m in maps for name in m.names}, set(folder.files)
    check_names(folder.path, needed, held, _without_a_head(folder.config, needed - held))


def check_names(path: Path, needed: set[str], held: set[str], advice: str = "") -> None:
    """Refuse a checkpoint at ``path`` that lacks a tensor or has another: none is dropped silently.

    Args:
        advice: what the message ends with where a tensor is missing.

    Raises:
        RunError: it does; names the first ones.
    """
    for names, problem, more in (
        (needed - held, "lacks {} tensors that its family needs", advice),
        (held - needed, "holds {} tensors that its family does not name", ""),
    ):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise RunError(f"model: {path} {problem.format(len(names))}, first {first}{more}")


def _without_a_head(config: HuggingFaceConfig, missing: Iterable[str]) -> str:
    """What helps where tools such as transformers left the prediction head out."""
    heads = tuple(prediction_depths(config))
    if not heads or not all(name.startswith(heads) for name in missing):
        return ""
    return "; to leave the prediction head out, set num_nextn_predict_layers to 0 in config.json"
