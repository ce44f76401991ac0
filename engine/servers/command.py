"""Command lines of SGLang servers on a GPU and on the CPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.platform.sglang_cpu.plugin import ATTENTION_BACKEND

SHARED_MEMORY = 0.4
"""Part of a GPU's memory that a server takes beside a trainer rank. Never run."""


@dataclass(frozen=True)
class ServerPlace:
    """Addresses, GPUs and memory of a server.

    Attributes:
        address: ``host:port`` of its HTTP interface.
        rendezvous: ``host:port`` where its own ranks find each other; SGLang would search a port
            itself, and two servers that start together can find the same one.
        devices: GPUs of its machine, neighbours; none: it computes on the CPU.
        memory: the server's part of each GPU's memory; None: SGLang's choice.
    """

    address: str
    rendezvous: str
    devices: tuple[int, ...] = ()
    memory: float | None = None


def server_command(
    model: Path, place: ServerPlace, *, tp: int, max_total_tokens: int, seed: int
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the argument vector and the environment of one server; nothing is started here.

    Args:
        model: a Hugging Face folder; the weights it has until the first push (version 0).
        tp: its tensor-parallel size.
        max_total_tokens: tokens in its key-value cache, prompts included.
        seed: of its random numbers; no two servers should share one.
    """
    host, _, port = place.address.rpartition(":")
    flags = {
        "model-path": str(model),
        "host": host,
        "port": port,
        "nccl-port": place.rendezvous.rpartition(":")[2],
        "tp-size": str(tp),
        "max-total-tokens": str(max_total_tokens),
        "random-seed": str(seed),
        # What a server starts with is the model before the first update.
        "weight-version": "0",
        # No generation_config.json of a checkpoint decides on temperature or top-k.
        "sampling-defaults": "openai",
        # A line per decoded batch would be most of the log.
        "decode-log-interval": "1000",
        "log-level": "info",
        "log-level-http": "warning",
    }
    switches = [
        "skip-tokenizer-init",  # token ids in, token ids out: the sampler owns the tokenizer
        "skip-server-warmup",  # the first weight push and rollout warm up; a start costs 1 s less
        "sleep-on-idle",  # a server that waits for a training step leaves the core to it
    ]
    module, device_flags, env = _gpu(place) if place.devices else _cpu(tp)
    flags |= device_flags[0]
    switches += device_flags[1]
    command = [sys.executable, "-m", module]
    for name, value in flags.items():
        command += [f"--{name}", value]
    command += [f"--{switch}" for switch in switches]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # the model is a local folder
    return tuple(command), offline | env


Flags = tuple[dict[str, str], list[str]]


def _gpu(place: ServerPlace) -> tuple[str, Flags, dict[str, str]]:
    flags = {
        "dtype": "auto",  # the one the folder was written in: what the trainer exports
        "base-gpu-id": str(place.devices[0]),
    }
    if place.memory is not None:
        flags["mem-fraction-static"] = str(place.memory)
    return "sglang.launch_server", (flags, []), {}


def _cpu(tp: int) -> tuple[str, Flags, dict[str, str]]:
    flags = {
        "device": "cpu",
        "dtype": "float32",  # the parity gate compares with a float32 trainer to 1e-4
        "attention-backend": ATTENTION_BACKEND,
        "sampling-backend": "pytorch",
        "grammar-backend": "none",
        # SGLang reserves nothing by it on a CPU: it compares the memory that is free before and
        # after the weights are loaded, and at 0.05 does not start if anybody took 5 % meanwhile.
        # max-total-tokens bounds the cache.
        "mem-fraction-static": "1.0",
        "page-size": "1",  # with larger pages SGLang calls a Triton kernel
    }
    switches = [
        "disable-cuda-graph",
        "disable-overlap-schedule",  # overlaps the host with a device; here they are one core
        # To keep a tree of short prompts costs more than to compute them again: 15 % of the time
        # of 8 prompts x 16 samples with a dozen tokens each.
        "disable-radix-cache",
    ]
    env = {
        "SGLANG_USE_CPU_ENGINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "SGLANG_ENABLE_TORCH_INFERENCE_MODE": "true",  # no_grad costs 6 % more
        # One group of cores per rank; without it SGLang wants a NUMA node for each.
        "SGLANG_CPU_OMP_THREADS_BIND": "|".join(map(str, range(tp))),
        # The few functions that SGLang compiles would want Triton.
        "TORCHDYNAMO_DISABLE": "1",
        # Two threads per process on two cores were eight times slower than one.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "MKL_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    return "engine.platform.sglang_cpu.serve", (flags, switches), env
