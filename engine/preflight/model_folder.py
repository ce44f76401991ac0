"""Check that a run can train the model it is given: family, config, quantisation, tensors.

Configuration, index and headers are read, and the beginning of a tensor that is stored twice: a
second for hundreds of files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from engine.config.reader.keys import KeyPath
from engine.errors import RunError
from engine.models.sharding import TensorInfo, tensor_infos
from engine.models.weight_rules import Copies, TensorMap
from engine.preflight.finding import Finding
from engine.preflight.sections import Sections
from engine.weights import quantisation
from engine.weights.safetensors_header import beginning_of
from engine.weights.stored_folder import StoredFolder
from engine.weights.tensor_maps import MapKey, check_folder, maps_of_folder, shape_problems

T = TypeVar("T")

MODEL: KeyPath = ("model",)

_SHOWN = 5  # problems of one kind; a folder that is wrong in all of its tensors says no more in 500
_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_PLAIN = tuple(_NAMES.values())
_FP8 = "F8_E4M3"
_COMPARED = 1 << 16  # bytes of a tensor; two that differ do so from the start


def check(sections: Sections) -> Iterable[Finding]:
    """Find what would stop a run from loading and training the key ``model``."""
    path = sections.get("model", Path)
    if path is None or not path.exists():  # told by the key itself
        return
    found = _config_alone(path) if path.is_file() else _folder(path)
    for says in dict.fromkeys(sentence.removeprefix("model: ") for sentence in found):
        yield Finding(MODEL, says)


def _config_alone(file: Path) -> Iterator[str]:
    """Yield the problems of a ``config.json`` without weights, for a run that draws them."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # told by the key itself
        return
    if isinstance(config, dict):
        yield from _refusal(lambda: tensor_infos(config))


def _folder(path: Path) -> Iterator[str]:
    folder, refused = _tried(lambda: StoredFolder(path))
    if folder is not None:
        _, refused = _tried(lambda: folder.config)
    if folder is None or refused is not None:
        yield str(refused)
        return
    infos, refused = _tried(lambda: tensor_infos(folder.config))
    yield from [refused] if refused else []
    yield from _refusal(lambda: folder.quantised)
    yield from _weights(folder, infos)


def _weights(folder: StoredFolder, infos: list[TensorInfo] | None) -> Iterator[str]:
    """Yield the problems of index, headers, names, shapes and dtypes, as far as they can be told.

    Args:
        infos: the tensors that ``config.json`` asks for; None where it does not say.
    """
    stored, refused = _tried(lambda: folder.stored)
    if stored is None:
        yield str(refused)
        return
    damaged = list(folder.shard_problems())
    yield from _first(damaged)
    if infos is None or damaged:
        return
    maps, refused = _tried(lambda: maps_of_folder(folder))
    if maps is not None:
        _, refused = _tried(lambda: check_folder(folder, maps.values()))
    if maps is None or refused is not None:
        yield str(refused)
        return
    yield from _first(shape_problems(infos, maps, lambda name: folder.described(name).shape))
    yield from _first(_dtype_problems(folder, maps))
    yield from _copies_that_differ(folder, maps)


def _copies_that_differ(folder: StoredFolder, maps: dict[MapKey, TensorMap]) -> Iterator[str]:
    """Yield what should be one tensor under several names, such as a tied output layer."""
    for tensor_map in maps.values():
        if not isinstance(tensor_map.join, Copies):
            continue
        first, *others = tensor_map.names
        for name in others:
            kinds = {folder.described(one) for one in (first, name)}
            if len(kinds) == 1 and _beginning(folder, first) != _beginning(folder, name):
                tied = folder.config.get("tie_word_embeddings") and name == "lm_head.weight"
                way_out = "; set tie_word_embeddings to false in config.json" if tied else ""
                yield f"{name} should be a copy of {first}, and is another tensor{way_out}"


def _beginning(folder: StoredFolder, name: str) -> bytes:
    stored = folder.parts[name].name
    return beginning_of(folder.stored[stored], stored, _COMPARED)


def _dtype_problems(folder: StoredFolder, maps: dict[MapKey, TensorMap]) -> Iterator[str]:
    for tensor_map in maps.values():
        found = {name: folder.described(name).dtype for name in tensor_map.names}
        for name, dtype in found.items():
            if dtype == _FP8 and folder.quantised is not None:
                yield from _scale_problems(folder, folder.quantised, name)
            elif dtype not in _PLAIN:
                yield f"{name} is {dtype}; expected weights in {', '.join(_PLAIN)}: save them so"
        if folder.quantised is not None:
            plain = _NAMES[folder.quantised.dtype]  # they are dequantised before they are joined
            found = {name: plain if dtype == _FP8 else dtype for name, dtype in found.items()}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{name} is {dtype}" for name, dtype in found.items())
            yield f"tensors that make up one have several dtypes: {said}"


def _scale_problems(
    folder: StoredFolder, quantised: quantisation.BlockFp8, name: str
) -> Iterator[str]:
    scale, shape = quantisation.scale_of(name, folder.stored), folder.described(name).shape
    if scale is None:
        yield f"{name} is in FP8, and there is no {name}{quantisation.SCALE}"
        return
    wanted = quantisation.grid(shape, quantised.block) if len(shape) == 2 else None
    if (found := folder.in_header(scale).shape) != wanted:
        yield f"{scale} has shape {found}; weight_block_size in config.json asks for {wanted}"


def _tried(action: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what ``action`` returns, or the sentence with which it refuses."""
    try:
        return action(), None
    except RunError as error:
        return None, str(error)


def _refusal(action: Callable[[], object]) -> Iterator[str]:
    _, refused = _tried(action)
    if refused is not None:
        yield refused


def _first(problems: Iterable[str]) -> Iterator[str]:
    """Yield the first problems, and the number of the others."""
    rest = iter(problems)
    yield from islice(rest, _SHOWN)
    if more := sum(1 for _ in rest):
        yield f"and {more} more of that kind"
