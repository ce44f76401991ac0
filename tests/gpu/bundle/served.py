"""A server of SGLang beside the trainer on one GPU: do both give samples the same probabilities?

    python tests/gpu/bundle/served.py [--json FILE]

They are compared for the weights that both start with, after a push through the disk, and after a
push by handles of the trainer's own memory (CUDA IPC). Both compute in bfloat16; without a GPU the
program tries itself in float32 with the CPU's server. Exit status: 1 if they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository

import torch
from served_model import MODEL, write_model
from served_trainer import Trainer, trainer  # before the engine: it readies the platform

from engine.platform import accelerator
from engine.servers.client import Sampling, connect
from engine.servers.endpoint import Endpoint, open_session
from engine.weights.push.disk import update_from_disk
from tools.benchmarks.local_servers import (
    LocalServer,
    RunningServer,
    local_server,
    running,
    urls,
)

PROMPTS, PROMPT_TOKENS = 16, 16
ASKED = Sampling(n=4, max_new_tokens=64, temperature=1.0, stop_token_ids=())
BOUND = {"float32": 1e-3, "bfloat16": 0.15}
"""Nats, root mean square: bfloat16 rounds activations, and decides where two experts nearly tie."""
START_SECONDS = 200.0
REQUEST_SECONDS = 120.0
BEGUN = time.monotonic()


@dataclass(frozen=True)
class Comparison:
    """How far the trainer's log-probabilities are from the server's, in nats."""

    when: str
    tokens: int
    root_mean_square: float
    most: float
    passed: bool


def describe(model: Path) -> LocalServer:
    """Return a run's server; on a GPU it is gpu_server.py in place of SGLang's own program."""
    gpu = accelerator.has_gpu()
    devices, memory = ((0,), 0.3) if gpu else ((), None)
    server = local_server(model, max_total_tokens=65536, seed=1, devices=devices, memory=memory)
    if not gpu:
        return server
    python, _, _, *flags = server.command  # python -m sglang.launch_server ...
    command = (python, str(Path(__file__).with_name("gpu_server.py")), *flags)
    return replace(server, command=command)


class Pair:
    """A trainer and a server with the same weights."""

    def __init__(
        self, mine: Trainer, started: Sequence[RunningServer], dtype: str, results: Path | None
    ) -> None:
        self._trainer, self._urls, self._bound = mine, urls(started), BOUND[dtype]
        self._results = results
        generator = torch.Generator().manual_seed(2)
        size = (PROMPTS, PROMPT_TOKENS)
        self._prompts = torch.randint(2, MODEL["vocab_size"], size, generator=generator).tolist()
        self.comparisons: list[Comparison] = []

    def compare(self, when: str) -> None:
        """Have the server sample, and both say how probable each token was."""
        answers = asyncio.run(self._sample())
        theirs = torch.tensor([number for _, answer in answers for number in answer.logprobs])
        mine = self._trainer.log_probabilities([(p, answer.tokens) for p, answer in answers])
        off = mine - theirs.double()
        rms, most = float(off.square().mean().sqrt()), float(off.abs().max())
        found = Comparison(when, len(theirs), rms, most, rms < self._bound)
        self.comparisons.append(found)
        say(f"{when}: {len(theirs)} tokens, off by {rms:.2e} nats, at most {most:.2e}")
        if self._results:
            rows = [asdict(one) for one in self.comparisons]
            self._results.write_text(json.dumps(rows, indent=1) + "\n")

    async def _sample(self) -> list[tuple[list[int], Any]]:
        async with connect(self._urls, REQUEST_SECONDS) as client:
            groups = await asyncio.gather(*(client.generate(p, ASKED) for p in self._prompts))
        return [(p, one) for p, group in zip(self._prompts, groups, strict=True) for one in group]

    def push_through_the_disk(self, folder: Path) -> None:
        """Change the weights and have the server read them from ``folder``."""
        self._trainer.change()
        self._trainer.exporter.export(folder)
        update_from_disk(self._urls, folder, 1, REQUEST_SECONDS)

    def push_by_handles(self) -> None:
        """Change the weights and send the server where in the trainer's memory they are."""
        self._trainer.change()
        named = self._trainer.named_tensors()
        if not accelerator.has_gpu():
            torch.multiprocessing.set_sharing_strategy("file_system")
        handles = io.BytesIO()
        ForkingPickler(handles).dump(named)
        body = {
            "serialized_named_tensors": [base64.b64encode(handles.getvalue()).decode()],
            "flush_cache": True,
            "weight_version": "2",
        }
        say(f"the server answers {asyncio.run(self._post(body))}")

    async def _post(self, body: dict[str, Any]) -> Any:
        async with open_session() as session:
            endpoint = Endpoint(*next(iter(self._urls.items())))
            path = "/update_weights_from_tensor"
            return await endpoint.post(session, path, body, REQUEST_SECONDS)


def say(text: str) -> None:
    """Print ``text`` behind the seconds since the start."""
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", flush=True)


def compare_all(room: Path, results: Path | None) -> list[Comparison]:
    """Start trainer and server, and compare them after each way of passing weights."""
    dtype = "bfloat16" if accelerator.has_gpu() else "float32"
    source = write_model(room / "model", dtype)
    tokens = PROMPTS * ASKED.n * (PROMPT_TOKENS + ASKED.max_new_tokens)
    with trainer(source, dtype, tokens) as mine:
        say("the trainer has the model")
        with running([describe(source)], room, START_SECONDS) as started:
            say("the server is healthy")
            pair = Pair(mine, started, dtype, results)
            try:
                pair.compare("as started")
                pair.compare("again, with kernels compiled")
                pair.push_through_the_disk(room / "pushed")
                pair.compare("pushed through the disk")
                pair.push_by_handles()
                pair.compare("pushed by handles")
            except BaseException:
                print(started[0].log.read_text(errors="replace")[-6000:])
                raise
    return pair.comparisons


def main() -> int:
    """Print the comparisons as they are made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="the same for machines, kept up to date")
    options = parser.parse_args()
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    with tempfile.TemporaryDirectory(prefix="served-") as room:
        found = compare_all(Path(room), options.json)
    off = [one.when for one in found if not one.passed]
    print("served: " + (f"off {', '.join(off)}" if off else "all equal"))
    return int(bool(off))


if __name__ == "__main__":
    sys.exit(main())
