"""The policy that is trained: the model, its gradient buffers and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.optimizer import OptimizerConfig
from engine.models.build import build
from engine.models.family import HuggingFaceConfig
from engine.parallel.groups import counts_its_tokens
from engine.training.expert_load import ExpertLoad
from engine.training.forward import Row, model_logits, run_schedule
from engine.training.logits import log_probability_and_entropy

R = TypeVar("R", bound=Row)

Loss = Callable[[Tensor, Tensor, R], tuple[Tensor, dict[str, Tensor]]]
"""(log-probabilities [tokens], entropies [tokens], row) -> (scalar loss, metrics).

The losses of a minibatch's rows add up to the minibatch's loss, and so do the metrics.
"""


class Policy:
    """The trained model on this rank: megatron's DDP with the distributed optimizer (ZeRO-1)."""

    def __init__(
        self,
        config: HuggingFaceConfig,
        layout: LayoutConfig,
        optimizer: OptimizerConfig,
        dtype: torch.dtype,
        temperature: float = 1.0,
    ) -> None:
        """Build it, randomly initialised.

        Args:
            temperature: of the distribution that log-probabilities speak of.
        """
        self.temperature = temperature
        bare = build(config, layout, dtype)
        ddp = DistributedDataParallelConfig(
            use_distributed_optimizer=True, grad_reduce_in_fp32=True
        )
        self.model = DistributedDataParallel(bare.config, ddp, bare)
        self.optimizer = get_megatron_optimizer(_megatron(optimizer, dtype), [self.model])
        bare.config.finalize_model_grads_func = finalize_model_grads
        bare.config.grad_scale_func = self.optimizer.scale_loss
        self.expert_load = ExpertLoad(bare)

    def parameters_changed(self) -> None:
        """Tell the optimizer that the parameters were overwritten (its master copies follow)."""
        self.optimizer.reload_model_params()

    def update(
        self, rows: Sequence[R], loss: Loss[R], tokens: int, learning_rate: float
    ) -> dict[str, float]:
        """One optimizer step on one minibatch.

        Args:
            rows: this rank's packed rows; every data-parallel rank has the same number.
            loss: see :data:`Loss`.
            tokens: real tokens (prompts included, padding not) of the minibatch on all ranks.
            learning_rate: for this step.

        Returns:
            The loss's metrics, summed over all rows and ranks, and ``gradient_norm`` before
            clipping; equal on all ranks.
        """
        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        sums = run_schedule(self.model, rows, self._step(loss, tokens), forward_only=False)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        _, gradient_norm, _ = self.optimizer.step()
        return {**_sum_over_ranks(sums), "gradient_norm": float(gradient_norm)}

    def _step(self, loss: Loss[R], tokens: int) -> Callable[..., Any]:
        def step(pending: Iterator[R], model: torch.nn.Module) -> tuple[Tensor, Callable[..., Any]]:
            row = next(pending)

            def row_loss(logits: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                group = parallel_state.get_tensor_model_parallel_group()
                chosen, entropy = log_probability_and_entropy(
                    logits, row.packed.labels, self.temperature, group
                )
                value, metrics = loss(chosen, entropy, row)
                # megatron divides gradients by the real tokens of all rows and ranks, which also
                # is the right weight for the router's balance loss; `loss` has its own weights.
                real = (~row.packed.padding_mask).sum().int()
                return value * tokens, real, metrics

            return model_logits(model, row.packed), row_loss

        return step


def _megatron(optimizer: OptimizerConfig, dtype: torch.dtype) -> MegatronOptimizerConfig:
    return MegatronOptimizerConfig(
        optimizer="adam",
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_eps=optimizer.eps,
        clip_grad=optimizer.clip_grad,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=True,
    )


def _sum_over_ranks(per_row: list[dict[str, Tensor]]) -> dict[str, float]:
    """Add up the rows' metrics on all ranks; tensor-parallel duplicates count once."""
    names: list[Any] = [sorted(per_row[0]) if per_row else None]
    last = parallel_state.get_pipeline_model_parallel_last_rank()
    dist.broadcast_object_list(
        names, src=last, group=parallel_state.get_pipeline_model_parallel_group()
    )
    sums = torch.zeros(len(names[0]), dtype=torch.float64, device=torch.cuda.current_device())
    if counts_its_tokens():
        for index, name in enumerate(names[0]):
            sums[index] = torch.stack([row[name].double() for row in per_row]).sum()
    dist.all_reduce(sums)
    return dict(zip(names[0], sums.tolist(), strict=True))
