"""Write out a family's weight rules for what a folder holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import RunError
from engine.models.families.layer_rules import prediction_depths
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.weight_rules import TensorMap, expand
from engine.weights import quantisation
from engine.weights.hugging_face import HuggingFaceFolder

MapKey = tuple[str, int | None]
"""Checkpoint key and, for a tensor that exists once an expert, the expert."""

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def maps_of_folder(folder: HuggingFaceFolder) -> dict[MapKey, TensorMap]:
    """Return :func:`maps_of` a folder, which may hold no weights at all."""
    family_of(folder.config)  # a family that is not known is the first thing to say
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
    if method := quantisation.by_names(held - needed):
        raise RunError(
            f"model: {path} holds quantised weights ({method}): take the folder of the "
            "same model that is not quantised"
        )
    problems = []
    for names, problem, more in (
        (needed - held, "lacks {} tensors that its family needs", advice),
        (held - needed, "holds {} tensors that its family does not name", ""),
    ):
        if names:
            first = ", ".join(sorted(names, key=natural_order)[:3])
            problems.append(f"{problem.format(len(names))}, first {first}{more}")
    if problems:
        raise RunError(f"model: {path} {'; it '.join(problems)}")


def _without_a_head(config: HuggingFaceConfig, missing: Iterable[str]) -> str:
    """Return advice where tools such as transformers left the prediction head out, else ""."""
    heads = tuple(prediction_depths(config))
    if not heads or not all(name.startswith(heads) for name in missing):
        return ""
    return "; to leave the prediction head out, set num_nextn_predict_layers to 0 in config.json"


def check_weights(names: Sequence[str], parts: Sequence[Tensor], where: str) -> None:
    """Refuse tensors that are no weights: by dtype, or for values that are not finite.

    Args:
        names: of ``parts``, which are to be joined into one tensor.
        where: what the message begins with.

    Raises:
        RunError: another dtype than that of weights, parts of different dtypes (joining them would
            silently change one), NaN or infinity; names the tensor.
    """
    for name, part in zip(names, parts, strict=True):
        if part.dtype not in WEIGHT_DTYPES:
            raise RunError(
                f"{where}: {name} is {_dtype_name(part.dtype)}; expected weights in "
                f"{', '.join(map(_dtype_name, WEIGHT_DTYPES))}"
            )
        if part.dtype != parts[0].dtype:
            raise RunError(
                f"{where}: {name} is {_dtype_name(part.dtype)}, but {names[0]}, with which it "
                f"makes one tensor, is {_dtype_name(parts[0].dtype)}"
            )
        # aminmax passes NaN on, and reads the tensor once without making another.
        if part.numel() and not all(bound.isfinite() for bound in torch.aminmax(part)):
            bad = int((~part.isfinite()).sum())
            raise RunError(f"{where}: {name} has {bad:,} weights that are NaN or infinite")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names with layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
