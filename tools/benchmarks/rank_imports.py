"""What every rank of a pool imports, once, before it is forked."""

from __future__ import annotations

import gc

from engine.platform import accelerator

accelerator.prepare()

import torch  # noqa: E402
from megatron.core.distributed import DistributedDataParallel  # noqa: E402
from megatron.core.models.common.embeddings.rotary_pos_embedding import (  # noqa: E402
    RotaryEmbedding,
)
from megatron.core.models.common.embeddings.yarn_rotary_pos_embedding import (  # noqa: E402
    YarnRotaryEmbedding,
)
from megatron.core.transformer.moe.token_dispatcher import MoETokenDispatcher  # noqa: E402
from torch.distributed import PrefixStore, TCPStore  # noqa: E402

from engine.parallel.groups import process_groups  # noqa: E402
from engine.training.policy import Policy  # noqa: E402

__all__ = ["Policy", "PrefixStore", "TCPStore", "process_groups", "release_models"]


def release_models() -> None:
    """Let go of what keeps a finished case's models alive, and with them its groups' threads.

    token_dispatcher.py:610 stores ``probs`` on the dispatcher: tensor -> C++ graph -> DDP's hook ->
    module is a cycle that Python's collector cannot see. The rotary embeddings cache by ``self``.
    """
    for found in gc.get_objects():
        if isinstance(found, MoETokenDispatcher):
            for name, value in list(vars(found).items()):
                if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                    setattr(found, name, None)
        elif isinstance(found, DistributedDataParallel):
            found.grad_accs.clear()
    RotaryEmbedding.forward.cache_clear()
    YarnRotaryEmbedding.forward.cache_clear()
    gc.collect()
