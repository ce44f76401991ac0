"""Verify that two checkpoints hold the same model: digests of all tensors, by the weight rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from engine.errors import RunError
from engine.models.weight_rules import TensorMap
from engine.weights.hugging_face import companions
from engine.weights.values import check_weights
from tools.convert.digests import TensorDigest, tensor_digest
from tools.convert.precision import FP8, Precision
from tools.convert.sources import Source
from tools.convert.targets import RECORD, read_record

_NUMBERS = ("dtype", "torch_dtype", "quantization_config")
"""Keys of config.json that speak of how weights are stored, not of the model."""


@dataclass(frozen=True)
class Verified:
    """Record of a comparison in which all was equal.

    Attributes:
        dtype: what the first one's tensors were rounded to, as the second one's record says it was
            written; None where they were compared as they are.
        recorded: whether the second one's record was compared, too.
    """

    tensors: int
    bytes: int
    dtype: str | None
    recorded: bool


def verify(
    first: Source, second: Source, workers: int, progress: Callable[[int], object]
) -> Verified:
    """Compare every tensor of two checkpoints, and the files beside them.

    Raises:
        RunError: they differ; names tensors or files.
    """
    mine, theirs = ({n for m in of.maps.values() for n in m.names} for of in (first, second))
    if odd := sorted(mine ^ theirs):
        raise RunError(f"only one of {first.path} and {second.path} has {', '.join(odd[:3])}")
    _same_companions(first, second)
    record = read_record(second.path)
    precision = Precision(record["options"].get("dtype") if record else None)
    recorded = record["tensors"] if record else None

    def look(tensor_map: TensorMap) -> list[str]:
        return list(_differences(tensor_map, first, second, precision, recorded, progress))

    with ThreadPoolExecutor(workers) as pool:
        problems = [problem for found in pool.map(look, first.maps.values()) for problem in found]
    if problems:
        raise RunError(f"{len(problems)} tensors differ: {'; '.join(problems[:5])}")
    sizes = [part.bytes for m in first.maps.values() for part in first.describe(m)]
    return Verified(len(sizes), sum(sizes), precision.name, record is not None)


def _differences(
    tensor_map: TensorMap,
    first: Source,
    second: Source,
    precision: Precision,
    recorded: Mapping[str, Any] | None,
    progress: Callable[[int], object],
) -> Iterator[str]:
    names = tensor_map.names
    mine = first.parts(tensor_map)
    check_weights(names, mine, f"model: {first.path}")
    wanted = precision.apply(names, mine)
    if precision.name == FP8:  # its parts are dequantised: what is compared is what was written
        theirs = {name: second.companions.read_stored(name) for name in wanted}
    else:
        theirs = dict(zip(names, second.parts(tensor_map), strict=True))
    for name, other in theirs.items():
        expected, found = tensor_digest(wanted[name]), tensor_digest(other)
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            yield (f"{name} is {found.dtype} {found.shape}, not {expected.dtype} {expected.shape}")
        elif found != expected:
            yield f"{name} has other values"
        elif recorded is not None and TensorDigest.from_json(recorded[name]) != found:
            yield f"{name} is not what {second.path / RECORD} says"
    progress(sum(part.nbytes for part in mine))


def _same_companions(first: Source, second: Source) -> None:
    mine, theirs = first.companions, second.companions
    odd = sorted(
        key
        for key in mine.config.keys() | theirs.config.keys()
        if mine.config.get(key) != theirs.config.get(key) and key not in _NUMBERS
    )
    if odd:
        raise RunError(f"config.json of {mine.path} and {theirs.path} differ in {', '.join(odd)}")
    for name in sorted({*companions(mine.path), *companions(theirs.path)} - {"config.json"}):
        files = [folder / name for folder in (mine.path, theirs.path)]
        contents = [file.read_bytes() if file.is_file() else None for file in files]
        if None in contents:
            raise RunError(f"only one of {mine.path} and {theirs.path} has {name}")
        if contents[0] != contents[1]:
            raise RunError(f"{files[0]} and {files[1]} differ")
