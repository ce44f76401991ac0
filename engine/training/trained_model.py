"""The policy that is trained: the model, its gradient buffers and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.packing import PackedRow
from engine.models.build import build
from engine.models.family import HuggingFaceConfig
from engine.models.gpt import GPTBackbone, MtpMode
from engine.parallel.context import my_slice
from engine.parallel.groups import counts_its_tokens
from engine.training.data_parallel import data_parallel, release
from engine.training.expert_load import ExpertLoad
from engine.training.forward import hidden_states, run_schedule
from engine.training.fp8_master_weights import set_fp8_master_weights
from engine.training.token_logprobs import TokenLogProbs, WeightedRow
from engine.weights.full_precision import HighPrecisionWeights
from engine.weights.shards import unwrap

R = TypeVar("R", bound=WeightedRow)

Loss = Callable[[Tensor, Tensor, R], tuple[Tensor, dict[str, Tensor]]]
"""(log-probabilities [tokens], entropies [tokens], row) -> (scalar loss, metrics).

The losses of a minibatch's rows add up to the minibatch's loss, and so do the metrics.
"""


class TrainedModel:
    """The trained model on this rank: megatron's DDP with the distributed optimizer (ZeRO-1).

    Attributes:
        chunks: this rank's model chunks as DDP wraps them, one for each virtual pipeline stage.
        scorer: how hidden states become log-probabilities.
    """

    def __init__(
        self,
        config: HuggingFaceConfig,
        layout: LayoutConfig,
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        *,
        temperature: float = 1.0,
        mtp: MtpMode = "joint",
    ) -> None:
        """Build it, randomly initialised.

        Args:
            temperature: of the distribution that log-probabilities speak of.
            mtp: what the multi-token prediction loss reaches, where ``training`` gives it a weight.
        """
        self.scorer = TokenLogProbs(temperature, training.logits_chunk_tokens)
        self._mtp_weight = training.mtp_loss_weight
        bare = build(config, layout, training)
        for chunk in bare:
            _set_mtp_mode(chunk, mtp if self._mtp_weight else "off")
        self.chunks = data_parallel(bare, training)
        self.optimizer = get_megatron_optimizer(_megatron(optimizer, training), self.chunks)
        bare[0].config.finalize_model_grads_func = finalize_model_grads
        bare[0].config.grad_scale_func = self.optimizer.scale_loss
        self.expert_load = ExpertLoad(bare)

    def parameters_changed(self, unrounded: HighPrecisionWeights | None = None) -> None:
        """Tell the optimizer that the parameters were overwritten (its master copies follow).

        Args:
            unrounded: what FP8 parameters were before they were rounded, for their masters.
        """
        self.optimizer.reload_model_params()
        if unrounded:
            set_fp8_master_weights(self.optimizer, unrounded)

    def close(self) -> None:
        """Let its memory go when its last reference is gone; else a second policy adds to it."""
        for chunk in self.chunks:
            release(chunk)

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
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        sums = run_schedule(self.chunks, rows, self._step(loss, tokens), forward_only=False)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        _, gradient_norm, _ = self.optimizer.step()
        return {**_sum_over_ranks(sums), "gradient_norm": float(gradient_norm)}

    def _step(self, loss: Loss[R], tokens: int) -> Callable[..., Any]:
        def step(pending: Iterator[R], chunk: torch.nn.Module) -> tuple[Tensor, Callable[..., Any]]:
            row = next(pending)
            model = unwrap(chunk)

            def row_loss(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                value, metrics = self._loss(loss, model, hidden, row)
                # megatron divides gradients by the real tokens of all rows and ranks, which also
                # is the right weight for the router's balance loss; `loss` has its own weights.
                return value * tokens, _real_tokens(row.packed), metrics

            return hidden_states(chunk, row.packed), row_loss

        return step

    def _loss(
        self, loss: Loss[R], model: GPTBackbone, hidden: Tensor, row: R
    ) -> tuple[Tensor, dict[str, Tensor]]:
        trunk, *depths = hidden.chunk(model.depths())
        chosen, entropy = self.scorer.score(model, trunk, row.packed, row.packed.labels)
        value, metrics = loss(chosen, entropy, row)
        if depths:
            mtp = self.scorer.mtp_loss(model, depths, row)
            value = value + self._mtp_weight * mtp
            metrics = {**metrics, "mtp_loss": mtp.detach()}
        return value, metrics


def _set_mtp_mode(chunk: GPTBackbone, mode: MtpMode) -> None:
    """A head without a loss is no part of the training: neither gradient nor weight decay."""
    chunk.mtp_mode = mode
    if chunk.mtp_process and mode == "off":
        chunk.mtp.requires_grad_(False)


def _real_tokens(row: PackedRow) -> Tensor:
    """Tokens of this rank's part of the row that are no padding, int32 scalar."""
    mine = my_slice(row.cu_seqlens, len(row.tokens))
    padding = row.padding_mask if mine is None else row.padding_mask[mine]
    return (~padding).sum().int()


def _megatron(optimizer: OptimizerConfig, training: TrainingConfig) -> MegatronOptimizerConfig:
    dtype: torch.dtype = getattr(torch, training.dtype)
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
        overlap_param_gather=training.overlap_param_gather,
        **_offload(training.optimizer_offload),
    )


def _offload(share: float) -> dict[str, Any]:
    """megatron's HybridDeviceOptimizer. Never run: there is nothing to offload without a GPU."""
    if not share:
        return {}
    return {
        "optimizer_cpu_offload": True,
        "optimizer_offload_fraction": share,
        "overlap_cpu_optimizer_d2h_h2d": True,
        # It keeps the float32 copies itself; megatron's own would stay on the GPU beside them.
        "use_precision_aware_optimizer": True,
    }


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
