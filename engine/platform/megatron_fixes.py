"""Mend bugs of megatron-core 0.16.1 from outside.

Each fix names the upstream line and what goes wrong without it. Most stand on the path without
Transformer Engine, which a machine without a GPU takes.
"""

from __future__ import annotations

from typing import Any

import torch


def apply(gpu: bool, transformer_engine: bool) -> None:
    """Mend megatron-core in this process; idempotent.

    Args:
        gpu: whether a GPU serves this process.
        transformer_engine: whether Transformer Engine does; a GPU without it is possible.
    """
    from megatron.core.distributed import distributed_data_parallel

    if getattr(distributed_data_parallel, "_r1_fixed", False):
        return
    distributed_data_parallel._r1_fixed = True
    _mask_padding_per_token()
    _end_with_a_shorter_unit_of_recomputation()
    _start_no_manager_process()
    _leave_chunks_of_one_rank_in_order()
    if not gpu:
        _give_splits_as_numpy()
    if transformer_engine:
        _let_gradients_accumulate_without_apex()
    else:
        _name_the_missing_gemm()
        _recompute_outputs_without_fp8()


def _let_gradients_accumulate_without_apex() -> None:
    """Mend layers.py:924, which refuses accumulation in the products without Apex's kernel.

    Its own linear layers would call that kernel. Beside Transformer Engine's, which have theirs,
    the output layer is the only one of them, and nothing but its weight is used.
    """
    from megatron.core.tensor_parallel import layers

    layers._grad_accum_fusion_available = True


def _name_the_missing_gemm() -> None:
    """Mend moe_utils.py:1192: it reads ``te_general_gemm``, which Transformer Engine defines."""
    from megatron.core.transformer.moe import moe_utils

    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None


def _give_splits_as_numpy() -> None:
    """Mend moe_utils.py:1093, which makes all-to-all split sizes numpy only on a GPU."""
    from megatron.core.transformer.moe import moe_utils, token_dispatcher

    original = moe_utils.maybe_move_tensor_to_cpu

    def as_asked(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        if as_numpy and torch.is_tensor(tensor):
            return tensor.numpy()
        return original(tensor, as_numpy, record_stream)

    token_dispatcher.maybe_move_tensor_to_cpu = as_asked


def _start_no_manager_process() -> None:
    """Mend filesystem_async.py:53, which starts a process on every rank to hand results over.

    ``engine.checkpoint`` hands them over itself. That process would import the main module a second
    time during the first save (a program without a main guard hangs there), and outlive a killed
    rank.
    """
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    filesystem_async._get_write_results_queue = lambda: None


def _leave_chunks_of_one_rank_in_order() -> None:
    """Mend token_dispatcher.py:732 and 767, which sort chunks of tokens that are in order.

    What a layer gets from one rank only, its own, is in the order of experts. Sorting it all the
    same takes two copies of all experts' inputs and outputs, and two more in the backward pass: 3 %
    of a step of Qwen3-30B-A3B's layers on an H100.
    """
    from megatron.core.transformer.moe import token_dispatcher

    dispatcher = token_dispatcher.MoEAlltoAllTokenDispatcher
    original_init, sort = dispatcher.__init__, token_dispatcher.sort_chunks_by_idxs

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original_init(self, *arguments, **named)
        if self.tp_size == self.ep_size == 1:
            self.sort_input_by_local_experts = self.restore_output_by_local_experts = None

    def sort_unless_in_order(tokens: Any, sizes: Any, order: Any, **rest: Any) -> Any:
        return (tokens, rest.get("probs")) if order is None else sort(tokens, sizes, order, **rest)

    dispatcher.__init__ = init
    token_dispatcher.sort_chunks_by_idxs = sort_unless_in_order


def _mask_padding_per_token() -> None:
    """Mend router.py:542: a [tokens, experts] routing map meets a [tokens] padding mask."""
    from megatron.core.transformer.moe.router import TopKRouter

    original = TopKRouter._apply_expert_bias

    def apply_expert_bias(self: Any, routing_map: torch.Tensor, padding_mask: Any = None) -> None:
        mask = None if padding_mask is None else padding_mask.unsqueeze(-1)
        original(self, routing_map, mask)

    TopKRouter._apply_expert_bias = apply_expert_bias


class _PastTheLastLayer:
    """A layer that returns its input, for units of recomputation that end past the last layer."""

    def __init__(self, layers: int) -> None:
        self.layer_number = layers

    def __call__(
        self, hidden_states: torch.Tensor, context: torch.Tensor | None, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return hidden_states, context


def _end_with_a_shorter_unit_of_recomputation() -> None:
    """Mend transformer_block.py:538, which recomputes layers beyond the last one of a stage.

    Where recompute_num_layers does not divide the stage's layers, it ends in an IndexError.
    """
    from megatron.core.transformer.transformer_block import TransformerBlock

    def get_layer(self: Any, layer_number: int) -> Any:
        if layer_number < len(self.layers):
            return self.layers[layer_number]
        return _PastTheLastLayer(self.config.num_layers)

    TransformerBlock._get_layer = get_layer


def _recompute_outputs_without_fp8() -> None:
    """Mend tensor_parallel/random.py:636, which tests ``fp8 is not None`` where fp8 is False.

    Selective recomputation then asks Transformer Engine about its FP8 state: a NameError.
    """
    from megatron.core.tensor_parallel.random import CheckpointWithoutOutput

    original = CheckpointWithoutOutput.__init__

    def init(self: Any, fp8: Any = None) -> None:
        original(self, fp8)
        self.fp8 = False

    CheckpointWithoutOutput.__init__ = init
