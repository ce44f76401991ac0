"""Imports of every rank of a pool, done once before it is forked (with a GPU: after the start)."""

from __future__ import annotations

import gc
import os

import torch

from engine.platform import accelerator

accelerator.prepare(int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count()))

from megatron.core.distributed import DistributedDataParallel  # noqa: E402
from megatron.core.models.common.embeddings.rotary_pos_embedding import (  # noqa: E402
    RotaryEmbedding,
)
from megatron.core.models.common.embeddings.yarn_rotary_pos_embedding import (  # noqa: E402
    YarnRotaryEmbedding,
)
from torch.distributed import PrefixStore, TCPStore  # noqa: E402

from engine.parallel.groups import process_groups  # noqa: E402
from engine.training.data_parallel import release  # noqa: E402

__all__ = ["PrefixStore", "TCPStore", "forget_models", "process_groups"]


def forget_models() -> None:
    """Free a finished case's models; a group's threads run as long as a module refers to it.

    The rotary embeddings cache by ``self``. A case need not close its policies.
    """
    for found in gc.get_objects():
        # type(): isinstance() would ask deprecated stand-ins for their class, and they warn.
        if issubclass(type(found), DistributedDataParallel):
            release(found)
    RotaryEmbedding.forward.cache_clear()
    YarnRotaryEmbedding.forward.cache_clear()
    gc.collect()
