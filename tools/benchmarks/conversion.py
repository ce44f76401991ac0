"""Measure speed and memory of converting a checkpoint, against a plain copy of its files.

    python -m tools.benchmarks.conversion [--help]

A model of Qwen3-30B-A3B's layers, with fewer experts and random weights, is written in shards, then
copied (with ``shutil.copyfile`` and an fsync, as many files at once as the conversion writes),
converted to megatron and back, in turns. Conversion reads every source byte once, reads back
everything it wrote, and hashes each tensor twice; the ratio to the copy is the cost of that.

Then a model ``--times`` larger than ``--memory`` is converted in a process of its own, and the
memory that the process needed beyond its imports is compared with the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.errors import RunError, clear_errors
from engine.models.family import family_of
from engine.models.sharding import tensor_infos
from engine.models.weight_rules import expand
from engine.platform.files import sync
from engine.weights.safetensors_file import Described, SafetensorsWriter
from engine.weights.stored_folder import INDEX
from tools.benchmarks import report
from tools.benchmarks.memory import peak, start_peak
from tools.convert.conversion import Conversion
from tools.convert.cuts import Cuts
from tools.convert.hugging_face_target import HuggingFaceTarget
from tools.convert.megatron_target import MegatronTarget
from tools.convert.opening import open_source
from tools.convert.precision import Precision

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 4096,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@dataclass(frozen=True)
class Speeds:
    """Medians over the turns, in GB of weights a second."""

    gigabytes: float
    copy: float
    to_megatron: float
    to_hugging_face: float


@dataclass(frozen=True)
class Memory:
    """Memory of a conversion, in MB.

    Attributes:
        model: size of the weights.
        largest: size of the largest tensor.
        needed: largest resident memory of the process beyond what it had before the conversion.
    """

    model: float
    largest: float
    needed: float


def write_model(folder: Path, gigabytes: float, file_bytes: int) -> float:
    """Write random bfloat16 weights, layers of about ``gigabytes`` in all; return GB written."""
    layers = 2  # as many as pipeline stages
    while _size({**CONFIG, "num_hidden_layers": layers + 1}) <= gigabytes * 1e9:
        layers += 1
    config = {**CONFIG, "num_hidden_layers": layers}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    maps = expand(family_of(config).rules(config))
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    pending: dict[str, Described] = {}
    for whole in tensor_infos(config):
        parts = maps[whole.key, whole.expert].join.split(torch.empty(whole.shape, device="meta"))
        pending |= {
            name: Described(torch.bfloat16, tuple(part.shape))
            for name, part in zip(whole.names, parts, strict=True)
        }
        if sum(part.bytes for part in pending.values()) > file_bytes:
            _write_shard(folder, weight_map, pending, generator)
            pending = {}
    if pending:
        _write_shard(folder, weight_map, pending, generator)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return _size(config) / 1e9


def _write_shard(
    folder: Path,
    weight_map: dict[str, str],
    tensors: dict[str, Described],
    generator: torch.Generator,
) -> None:
    file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
    with SafetensorsWriter(folder / file, tensors) as writer:
        for name, tensor in tensors.items():
            writer.put(name, torch.randn(tensor.shape, generator=generator).to(tensor.dtype))
        writer.finish()
    weight_map |= dict.fromkeys(tensors, file)


def _size(config: dict[str, Any]) -> int:
    return sum(2 * whole.elements for whole in tensor_infos(config))


def copy(source: Path, to: Path, workers: int) -> None:
    """Copy all files of a folder and sync them to the disk."""
    to.mkdir()

    def one(file: Path) -> None:
        shutil.copyfile(file, to / file.name)
        sync(to / file.name)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, source.iterdir()))


def to_megatron(source: Path, to: Path, workers: int, file_bytes: int) -> None:
    """Convert to files for TP2 PP2 EP2."""
    opened = open_source(source)
    target = MegatronTarget(opened, Cuts(2, 2, 2), file_bytes)
    Conversion(opened, target, to, workers).run()


def to_hugging_face(source: Path, to: Path, workers: int, file_bytes: int) -> None:
    """Convert back, as the weights are."""
    opened = open_source(source, workers=workers)
    target = HuggingFaceTarget(opened, Precision(None), file_bytes)
    Conversion(opened, target, to, workers).run()


def measure(options: argparse.Namespace, folder: Path) -> Speeds:
    """Write the model; then copy and conversions take turns."""
    file_bytes = int(options.file_megabytes * 1e6)
    size = write_model(folder / "source", options.gigabytes, file_bytes)
    workers = options.workers
    turns: list[tuple[float, float, float]] = []
    for turn in range(options.repeats + 1):
        seconds = _turn(folder, workers, file_bytes)
        turns += [seconds] if turn else []  # the first one warms the page cache
    speeds = [size / median(seconds) for seconds in zip(*turns, strict=True)]
    return Speeds(size, *speeds)


def _turn(folder: Path, workers: int, file_bytes: int) -> tuple[float, float, float]:
    """Return the seconds of a copy, of a conversion, and of one back."""
    copied, there, back = (folder / name for name in ("copied", "there", "back"))
    begun = time.perf_counter()
    copy(folder / "source", copied, workers)
    is_copied = time.perf_counter()
    to_megatron(folder / "source", there, workers, file_bytes)
    is_there = time.perf_counter()
    to_hugging_face(there, back, workers, file_bytes)
    is_back = time.perf_counter()
    for made in (copied, there, back):
        shutil.rmtree(made)
    return is_copied - begun, is_there - is_copied, is_back - is_there


def measure_memory(options: argparse.Namespace, folder: Path) -> Memory:
    """Convert a model of ``--times`` the limit in a process of its own."""
    source, file_bytes = folder / "large", int(options.file_megabytes * 1e6)
    size = write_model(source, options.times * options.memory / 1e3, file_bytes)
    child = [sys.executable, "-m", "tools.benchmarks.conversion", "--child", str(source)]
    child += ["--workers", str(options.workers), "--file-megabytes", str(options.file_megabytes)]
    done = subprocess.run(
        [*child, "--memory", str(options.memory)], capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        raise RunError(f"the conversion in a process of its own failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    largest = max(
        2 * w.elements for w in tensor_infos(json.loads((source / "config.json").read_text()))
    )
    return Memory(size * 1e3, largest / 1e6, found["needed"])


def child(source: Path, options: argparse.Namespace) -> None:
    """Convert to megatron and back; print by how much the resident memory rose at most."""
    file_bytes = int(options.file_megabytes * 1e6)
    there, back = source.with_name("large-there"), source.with_name("large-back")
    open_source(source)  # what only the first conversion imports
    start_peak("cpu")
    before = peak("cpu")  # what is resident now
    to_megatron(source, there, options.workers, file_bytes)
    to_hugging_face(there, back, options.workers, file_bytes)
    print(json.dumps({"needed": (peak("cpu") - before) / 1e6}))


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    parser = report.command_line(__doc__)
    add = parser.add_argument
    add("--gigabytes", type=float, default=1.0, help="of the timed model (default: %(default)s)")
    add("--file-megabytes", type=float, default=100, help="largest file (default: %(default)s)")
    add("--workers", type=int, default=2, help="files at once (default: %(default)s)")
    add("--repeats", type=int, default=3, help="turns after the first (default: %(default)s)")
    add("--memory", type=float, default=256, help="limit in MB (default: %(default)s)")
    add("--times", type=float, default=4, help="model to limit (default: %(default)s)")
    add("--folder", type=Path, help="where to write (default: the temporary folder)")
    add("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    with clear_errors(), tempfile.TemporaryDirectory(dir=options.folder) as name:
        speeds, memory = measure(options, Path(name)), measure_memory(options, Path(name))
        _show(options, speeds, memory)
        if memory.needed > options.memory:
            raise RunError(f"{memory.needed:.0f} MB were needed, the limit is {options.memory:.0f}")


def _show(options: argparse.Namespace, speeds: Speeds, memory: Memory) -> None:
    for label, speed in (
        ("copy", speeds.copy),
        ("to megatron", speeds.to_megatron),
        ("to Hugging Face", speeds.to_hugging_face),
    ):
        print(f"{label:16}{speed:7.3f} GB/s{speed / speeds.copy:7.2f}x")
    print(
        f"{memory.model:.0f} MB of weights needed {memory.needed:.0f} MB "
        f"({memory.needed / memory.model:.2f} of the model; the largest tensor has "
        f"{memory.largest:.0f} MB, {options.workers} files at once)"
    )
    report.write(options, speeds=asdict(speeds), memory=asdict(memory))


if __name__ == "__main__":
    main()
