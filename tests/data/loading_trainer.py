"""A trainer that loads with DALI, names DALI's worker, and goes on until it is killed."""

from __future__ import annotations

import time

import psutil
import torch
from loader_sources import Slow

from engine.config.trainer import LoadingConfig
from engine.data.batch_builder import Packing
from engine.data.batches import BatchReader
from engine.data.loader import open_loader
from engine.data.order import in_turn

if __name__ == "__main__":
    reader = BatchReader(Slow(0.01), in_turn, 1, Packing(0, 1, tokens_per_microbatch=8))
    with open_loader(LoadingConfig(loader="dali"), reader, 0, torch.device("cpu")) as loader:
        next(loader)
        children = psutil.Process().children(recursive=True)
        print(*(c.pid for c in children if "spawn_main" in " ".join(c.cmdline())), flush=True)
        while True:
            time.sleep(1)
