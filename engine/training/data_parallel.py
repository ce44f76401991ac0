"""Model chunks under megatron's DDP: gradient buffers, and communication beside computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from torch import Tensor

from engine.config.training import TrainingConfig
from engine.models.gpt import GPTBackbone


def data_parallel(
    chunks: Sequence[GPTBackbone], training: TrainingConfig
) -> list[DistributedDataParallel]:
    """Wrap this rank's chunks, and tell megatron's schedule when each may communicate.

    With ``overlap_param_gather`` a parameter that another rank updates is out of date until it has
    been fetched. The module that owns it waits for it in its forward pass; whoever reads weights in
    another way gets there through :meth:`GPTBackbone.wait_for_parameters`.
    """
    aligned = training.overlap_param_gather and len(chunks) > 1
    ddp = DistributedDataParallelConfig(
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=training.overlap_grad_reduce,
        overlap_param_gather=training.overlap_param_gather,
        fp8_param_gather=training.fp8_parameters,
        align_param_gather=aligned,
        bucket_size=training.bucket_parameters,
    )
    # Only the first chunk's communication runs beside computation long enough to be cut up.
    wrapped = [
        DistributedDataParallel(chunk.config, ddp, chunk, disable_bucketing=number > 0)
        for number, chunk in enumerate(chunks)
    ]
    schedule = wrapped[0].config
    if training.overlap_grad_reduce:
        # Rows before the last only add to the buffers; after it all stages start at a time.
        schedule.no_sync_func = _for_schedule([chunk.no_sync for chunk in wrapped])
        schedule.grad_sync_func = _for_schedule([chunk.start_grad_sync for chunk in wrapped])
    if aligned:
        schedule.param_sync_func = _for_schedule([chunk.start_param_sync for chunk in wrapped])
    if training.overlap_param_gather:
        for bare, chunk in zip(chunks, wrapped, strict=True):
            bare.fetch_parameters = partial(_fetch_parameters, chunk)
    return wrapped


def release(chunk: DistributedDataParallel) -> None:
    """Break the cycles that keep a wrapped chunk in memory after its last reference is gone.

    Python cannot see them, they lead through autograd's C++ graph: the hooks hang on the gradient
    accumulators, views of the parameters (in the optimizer) and tensors that the token dispatchers
    keep (token_dispatcher.py:610) lead to those, and the model's config leads back to the optimizer
    and to the wrapper.
    """
    chunk.grad_accs.clear()
    for function in ("grad_scale_func", "no_sync_func", "grad_sync_func", "param_sync_func"):
        setattr(chunk.config, function, None)
    for module in chunk.modules():
        dispatcher = getattr(module, "token_dispatcher", None)
        for name, value in list(vars(dispatcher).items()) if dispatcher else []:
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(dispatcher, name, None)


def _for_schedule(functions: list[Callable[..., Any]]) -> Any:
    """Return what megatron's schedule takes: a function; a list of them where interleaved."""
    return functions if len(functions) > 1 else functions[0]


def _fetch_parameters(chunk: DistributedDataParallel) -> None:
    """Wait for every parameter of ``chunk``; all data-parallel ranks take part.

    Not ``start_param_sync(force_sync=True)``: it gathers again what is there already, and leaves
    FP8 parameters without the transpose that their kernels read (distributed_data_parallel.py:478
    makes it only where nothing overlaps).
    """
    for group in chunk.bucket_groups + chunk.expert_parallel_bucket_groups:
        group.finish_param_sync(skip_next_bucket_dispatch=True)
