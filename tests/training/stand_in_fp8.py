"""A tensor class that is to a CPU what Transformer Engine's FP8 tensors are to a GPU.

E4M3 values under one scale for each tensor, held as bytes; it cannot be viewed or cut, and any
other operation sees its values. Where megatron asks Transformer Engine, it is asked instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from megatron.core import fp8_utils
from megatron.core.distributed import param_and_grad_buffer
from torch import Tensor
from torch.utils._pytree import tree_map_only

import engine.training.trained_model
from engine.models.build import build

LARGEST = 448.0
aten = torch.ops.aten


class StandIn(torch.Tensor):
    """A parameter in FP8; ``raw`` [the tensor's shape] uint8, ``scale`` float32 scalar."""

    raw: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor, scale: Tensor) -> StandIn:
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, dtype=torch.bfloat16, device=raw.device
        )
        made.raw, made.scale = raw, scale
        return made

    def type(self, *_: Any) -> str:
        return "torch.cuda.BFloat16Tensor"  # what the distributed optimizer compares with

    def dequantize(self) -> Tensor:
        return (self.raw.view(torch.float8_e4m3fn).float() * self.scale).bfloat16()

    def float(self) -> Tensor:
        return self.dequantize().float()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.detach.default:
            return cls(args[0].raw, args[0].scale)
        if func in (aten.view.default, aten.split.Tensor, aten.slice.Tensor):
            raise NotImplementedError(f"{func} of an FP8 tensor")
        target = args[0] if func is aten.copy_.default else None
        args, kwargs = tree_map_only(cls, cls.dequantize, (args, kwargs or {}))
        if isinstance(target, cls):
            values = args[1].bfloat16()
            target.scale.copy_(scale_of(values.abs().max().float()))
            target.raw.copy_(rounded(values, target.scale))
            return target
        return func(*args, **kwargs)


def scale_of(largest: Tensor) -> Tensor:
    return largest.clamp(min=1e-12) / LARGEST


def rounded(values: Tensor, scale: Tensor) -> Tensor:
    """Bytes of ``values`` under ``scale``."""
    return (values.float() / scale).to(torch.float8_e4m3fn).view(torch.uint8)


def of(values: Tensor) -> StandIn:
    """``values`` in FP8."""
    plain = values.detach().bfloat16()
    scale = scale_of(plain.abs().max().float())
    return StandIn(rounded(plain, scale), scale)


def _replace_storage(tensor: StandIn, raw: Tensor) -> None:
    raw.copy_(tensor.raw)
    tensor.raw = raw


def _round_shards(parameters: Any, masters: Any, offsets: Any, group: Any, _: Any = None) -> None:
    for parameter, master, offset in zip(parameters, masters, offsets, strict=True):
        own = torch.zeros(0) if master is None else master.bfloat16().float()
        largest = torch.cat([own.abs(), torch.zeros(1)]).max()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        parameter.scale.copy_(scale_of(largest))
        if master is not None:
            there = parameter.raw.view(-1)[offset : offset + master.numel()]
            there.copy_(rounded(own, parameter.scale))


@contextmanager
def fp8_parameters(chosen: Callable[[str], bool]) -> Iterator[None]:
    """Within the block policies are built with the parameters of ``chosen`` names in FP8."""

    def build_in_fp8(*arguments: Any) -> Any:
        chunks = build(*arguments)
        for chunk in chunks:
            for prefix, module in chunk.named_modules():
                for name, parameter in module.named_parameters(recurse=False):
                    if chosen(f"{prefix}.{name}"):
                        module._parameters[name] = _as_parameter(parameter)
        return chunks

    with (
        patch.object(engine.training.trained_model, "build", build_in_fp8),
        # Gloo sends coalesced tensors as if all had the first one's dtype; here are two dtypes.
        patch.object(param_and_grad_buffer, "_coalescing_manager", lambda *_, **__: nullcontext()),
        patch.multiple(
            fp8_utils,
            HAVE_TE_FP8_TENSOR_CLASS=True,
            FP8_TENSOR_CLASS=StandIn,
            is_te_min_version=lambda _: True,
            _modify_underlying_storage_impl=_replace_storage,
            _quantize_param_shard_impl=_round_shards,
        ),
    ):
        yield


def _as_parameter(plain: torch.nn.Parameter) -> torch.nn.Parameter:
    made = torch.nn.Parameter(of(plain))
    made.__dict__.update({k: v for k, v in plain.__dict__.items() if k not in ("raw", "scale")})
    return made
