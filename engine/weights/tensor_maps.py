"""Write out a family's weight rules for what a folder holds, and compare the two; no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from engine.errors import RunError
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.sharding import TensorInfo
from engine.models.weight_rules import TensorMap, expand
from engine.weights import quantisation
from engine.weights.other_formats import ADAPTER
from engine.weights.stored_folder import StoredFolder
from engine.weights.unexpected_names import likely_cause

MapKey = tuple[str, int | None]
"""Checkpoint key and, for a tensor that exists once an expert, the expert."""


def maps_of(
    config: HuggingFaceConfig, stored: Collection[str] | None = None
) -> dict[MapKey, TensorMap]:
    """Return all tensors of the model, each Hugging Face name in exactly one of them.

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


def maps_of_folder(folder: StoredFolder) -> dict[MapKey, TensorMap]:
    """Return :func:`maps_of` a folder, which may hold no weights at all."""
    family_of(folder.config)  # a family that is not known is the first thing to say
    return maps_of(folder.config, folder.names)


def check_folder(folder: StoredFolder, maps: Iterable[TensorMap]) -> None:
    """Refuse a folder whose tensors are not those of its family, or that is an adapter, too.

    Raises:
        RunError: see :func:`check_names`; or tools take the folder for two models.
    """
    if (folder.path / ADAPTER).is_file():
        raise RunError(
            f"model: {folder.path} holds {ADAPTER} beside a whole model, with which transformers "
            "loads another one: delete it if the adapter is merged, else merge it"
        )
    needed, held = {name for m in maps for name in m.names}, set(folder.files)
    advice = likely_cause(folder.config, needed - held, held - needed)
    check_names(folder.path, needed, held, advice)


def check_names(path: Path, needed: set[str], held: set[str], advice: str = "") -> None:
    """Refuse a checkpoint at ``path`` that lacks a tensor or has another: none is dropped silently.

    Args:
        advice: what the message ends with.

    Raises:
        RunError: it does; names the first ones.
    """
    if method := quantisation.by_names(held - needed):
        raise RunError(
            f"model: {path} holds quantised weights ({method}): take the folder of the "
            "same model that is not quantised"
        )
    problems = []
    for names, problem in (
        (needed - held, "lacks {} tensors that its family needs"),
        (held - needed, "holds {} tensors that its family does not name"),
    ):
        if names:
            first = ", ".join(sorted(names, key=natural_order)[:3])
            problems.append(f"{problem.format(len(names))}, first {first}")
    if problems:
        raise RunError(f"model: {path} {'; it '.join(problems)}{advice}")


def shape_problems(
    infos: Iterable[TensorInfo],
    maps: Mapping[MapKey, TensorMap],
    shape_of: Callable[[str], tuple[int, ...]],
) -> Iterator[str]:
    """Yield a sentence for each tensor of another shape than ``config.json`` asks for.

    Args:
        infos: of ``tensor_infos``, of the same config as ``maps``.
        shape_of: returns a tensor's shape by its Hugging Face name.
    """
    for whole in infos:
        tensor_map = maps[whole.key, whole.expert]
        for name, asked in zip(
            tensor_map.names, tensor_map.join.split_shape(whole.shape), strict=True
        ):
            if (found := shape_of(name)) != asked:
                yield f"{name} has shape {found}; config.json asks for {asked}"


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names with layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
