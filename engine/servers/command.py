"""How a sampling server is started: the command lines of SGLang on a GPU and on the CPU."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.config.process import Ports, Process
from engine.errors import RunError
from engine.platform.sglang_cpu.plugin import ATTENTION_BACKEND
from engine.servers.placement import ServerGpus

HOST = "127.0.0.1"  # a server has no key: only this machine may talk to it
SERVERS_VARIABLE = "R1_SERVERS"  # environment of trainer and sampler: JSON, name -> base URL


@dataclass(frozen=True)
class Server:
    """One sampling server of a run: where it listens and the process that has to be started."""

    name: str
    url: str
    process: Process


def server_urls() -> dict[str, str]:
    """Return name and base URL of the run's servers, from ``R1_SERVERS``.

    Raises:
        RunError: the launcher has not set it.
    """
    if not (urls := os.environ.get(SERVERS_VARIABLE)):
        raise RunError(f"{SERVERS_VARIABLE} is not set: expected the servers' names and URLs")
    found: dict[str, str] = json.loads(urls)
    return found


def servers(
    model: Path,
    ports: Ports,
    *,
    count: int,
    port: int,
    tp: int,
    max_total_tokens: int,
    gpus: ServerGpus | None,
    seed: int,
) -> list[Server]:
    """Describe the ``count`` servers of a run; nothing is started here.

    Args:
        model: a Hugging Face folder; the weights a server has until the first push (version 0).
        ports: where free ports come from; a fixed ``port`` is claimed there too.
        count: number of servers, each with a whole copy of the model.
        port: 0 for any free ports, else the port of the first server; the others follow it.
        tp: tensor-parallel size of each server (GPUs per server).
        max_total_tokens: tokens in each server's key-value cache, prompts included.
        gpus: where the servers compute; None: on the CPU.
        seed: of the run; every server draws other random numbers.

    Raises:
        RunError: a port is in use.
    """
    described = []
    for index in range(count):
        own_port = ports.claim(port + index, "servers.port") if port else next(ports)
        command, env = server_command(
            model,
            own_port,
            rendezvous_port=next(ports),
            index=index,
            tp=tp,
            max_total_tokens=max_total_tokens,
            gpus=gpus,
            seed=seed * count + index,  # no two servers of two runs with neighbouring seeds agree
        )
        name = f"server-{index}"
        process = Process(name, command, env, service=True)
        described.append(Server(name, f"http://{HOST}:{own_port}", process))
    return described


def server_command(
    model: Path,
    port: int,
    *,
    rendezvous_port: int,
    index: int,
    tp: int,
    max_total_tokens: int,
    gpus: ServerGpus | None,
    seed: int,
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the argument vector and the environment of one server; see :func:`servers`.

    ``rendezvous_port`` is where the server's own ranks find each other (SGLang would search one
    itself, and two servers that start together can find the same); ``index`` picks its GPUs.
    """
    flags = {
        "model-path": str(model),
        "host": HOST,
        "port": str(port),
        "nccl-port": str(rendezvous_port),
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
    module, device_flags, env = _cpu(tp) if gpus is None else _gpu(gpus, index, tp)
    flags |= device_flags[0]
    switches += device_flags[1]
    command = [sys.executable, "-m", module]
    for name, value in flags.items():
        command += [f"--{name}", value]
    command += [f"--{switch}" for switch in switches]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # the model is a local folder
    return tuple(command), offline | env


Flags = tuple[dict[str, str], list[str]]


def _gpu(gpus: ServerGpus, index: int, tp: int) -> tuple[str, Flags, dict[str, str]]:
    flags = {
        "dtype": "auto",  # the one the folder was written in: what the trainer exports
        "base-gpu-id": str(gpus.first + index * tp),
    }
    if gpus.memory is not None:
        flags["mem-fraction-static"] = str(gpus.memory)
    return "sglang.launch_server", (flags, []), {}


def _cpu(tp: int) -> tuple[str, Flags, dict[str, str]]:
    flags = {
        "device": "cpu",
        "dtype": "float32",  # the parity gate compares with a float32 trainer to 1e-4
        "attention-backend": ATTENTION_BACKEND,
        "sampling-backend": "pytorch",
        "grammar-backend": "none",
        # Memory is bounded by max-total-tokens; the fraction only must leave room for it.
        "mem-fraction-static": "0.05",
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
