"""The trained model: megatron's chunks with a head, gradient buffers and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer, get_standard_config_overrides
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.trainer import OptimizerConfig
from engine.config.training import TrainingConfig
from engine.data.packing import PackedRow
from engine.errors import RunError
from engine.models.build import build
from engine.models.family import HuggingFaceConfig
from engine.models.gpt import GPTBackbone, MtpMode
from engine.parallel.context import my_slice
from engine.parallel.groups import counts_its_tokens
from engine.platform.quantised import any_quantised
from engine.training import divergence, non_finite
from engine.training.data_parallel import data_parallel, release
from engine.training.expert_load import ExpertLoad
from engine.training.forward import Row, hidden_states, run_schedule
from engine.training.fp8_master_weights import set_fp8_master_weights
from engine.training.heads.head import Head
from engine.training.heads.token_logprobs import TokenLogProbs, WeightedRow
from engine.training.optimizer_step import clip_and_step, ready_gradients, weights_norm
from engine.training.update_guard import LARGEST_GROWTH, UpdateGuard
from engine.weights.full_precision import HighPrecisionWeights
from engine.weights.shards import unwrap

R = TypeVar("R", bound=Row)

Loss = Callable[[Any, R], tuple[Tensor, dict[str, Tensor]]]
"""(the head's outputs for a row, the row) -> (scalar loss, metrics).

The outputs are ``TokenOutputs`` for :class:`TokenLogProbs`, values [samples] for ``ScalarHead``.
The losses of a minibatch's rows add up to the minibatch's loss, and so do the metrics.
"""

_OBJECTIVE = "objective"
"""Beside the loss's metrics: the value itself that the gradient is of."""


@dataclass(frozen=True)
class Minibatch:
    """The last minibatch of an update, as ``confirm`` computes its gradient again."""

    rows: Sequence[Any]
    loss: Loss[Any]
    tokens: int
    learning_rate: float
    norm: float  # of its gradient
    before: float  # norm of the weights before the update


class TrainedModel:
    """The trained model on this rank: megatron's DDP with the distributed optimizer (ZeRO-1).

    Attributes:
        chunks: this rank's model chunks as DDP wraps them, one for each virtual pipeline stage.
        config: contents of a ``config.json`` that describes the model with its head.
        head: makes outputs of hidden states.
        guard: decides whether an update is made.
    """

    def __init__(
        self,
        config: HuggingFaceConfig,
        layout: LayoutConfig,
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        head: Head,
        *,
        mtp: MtpMode = "joint",
    ) -> None:
        """Build it, randomly initialised.

        Args:
            config: contents of ``config.json``; of the trunk at least.
            mtp: what the multi-token prediction loss reaches, where ``training`` gives it a weight.

        Raises:
            RunError: there is no model with this trunk and this head; or a weight is asked for the
                loss of a prediction head that the head has not.
        """
        if training.mtp_loss_weight and not isinstance(head, TokenLogProbs):
            raise RunError(
                "training.mtp_loss_weight: expected 0 for a model that does not predict tokens, "
                f"found {training.mtp_loss_weight:g}"
            )
        self.head, self.config = head, head.model_config(config)
        self._layout, self._training, self._mtp = layout, training, mtp
        self._mtp_weight = training.mtp_loss_weight
        self.guard = UpdateGuard(optimizer.skip_spikes)
        self._norm: float | None = None  # of the weights as they are; None: not known yet
        self._last: Minibatch | None = None
        self._build(optimizer)

    def _build(self, optimizer: OptimizerConfig) -> None:
        head, training = self.head, self._training
        bare = build(self.config, self._layout, training)
        for chunk in bare:
            head.initialise(chunk)
            _set_mtp_mode(chunk, self._mtp if self._mtp_weight else "off")
        self.chunks = data_parallel(bare, training)
        settings = _megatron(optimizer, training)
        groups = {**get_standard_config_overrides(settings), **head.optimizer_groups()}
        self.optimizer = get_megatron_optimizer(settings, self.chunks, config_overrides=groups)
        bare[0].config.finalize_model_grads_func = finalize_model_grads
        bare[0].config.grad_scale_func = self.optimizer.scale_loss
        self.expert_load = ExpertLoad(bare)

    def parameters_changed(self, unrounded: HighPrecisionWeights | None = None) -> None:
        """Tell the optimizer that the parameters were overwritten (its master copies follow).

        Args:
            unrounded: values of FP8 parameters before they were rounded; the FP32 master weights
                start from them.
        """
        self._norm = None
        self.optimizer.reload_model_params()
        if unrounded:
            set_fp8_master_weights(self.optimizer, unrounded)

    def restart_optimizer(self, optimizer: OptimizerConfig) -> None:
        """Begin again with an optimizer that has made no update; the weights stay.

        The optimizer's FP32 master weights start from the parameters, which in bfloat16 are rounded
        values. A stream or exporter made before goes on to give the old parameters: make another.

        Raises:
            RunError: there are FP8 parameters; too much of the master weights would be lost.
        """
        if any_quantised(self.chunks):
            raise RunError(
                "training.fp8_parameters: expected false where the optimizer is started again "
                "(its master weights would start from values rounded to FP8), found true"
            )
        weights = [unwrap(chunk).state_dict() for chunk in self.chunks]
        self.close()
        self.guard.skip_spikes = optimizer.skip_spikes
        self._build(optimizer)
        for chunk, kept in zip(self.chunks, weights, strict=True):
            unwrap(chunk).load_state_dict(kept)
        self.parameters_changed()

    def close(self) -> None:
        """Have its memory freed with its last reference; else a second policy adds to it."""
        for chunk in self.chunks:
            release(chunk)

    def update(
        self, rows: Sequence[R], loss: Loss[R], tokens: int, learning_rate: float
    ) -> dict[str, float]:
        """One optimizer step on one minibatch; none where the guard takes its gradient for a spike.

        Args:
            rows: this rank's packed rows; every data-parallel rank has the same number.
            loss: see :data:`Loss`.
            tokens: real tokens (prompts included, padding not) of the minibatch on all ranks.
            learning_rate: for this step; a group's ``lr_mult`` multiplies it.

        Returns:
            The loss's metrics, summed over all rows and ranks, and ``gradient_norm`` before
            clipping; finite, and equal on all ranks.

        Raises:
            Diverged: the loss, one of its metrics or the gradient norm is NaN or infinite; or the
                update has made weights with which they would be. On all ranks.
        """
        self.guard.begin_minibatch()
        sums, norm = self._gradients(rows, loss, tokens)
        objective = sums.pop(_OBJECTIVE)
        admitted = self.guard.admits(
            objective,
            sums,
            norm,
            learning_rate,
            odd_weights=partial(non_finite.weights, self.chunks),
            odd_gradients=partial(non_finite.gradients, self.chunks),
        )
        before = weights_norm(self.optimizer) if self._norm is None else self._norm
        self._last = Minibatch(rows, loss, tokens, learning_rate, norm, before)
        if admitted:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate * group["lr_mult"]
            clip_and_step(self.optimizer, norm)
            self._norm = weights_norm(self.optimizer)
            if not self._norm <= LARGEST_GROWTH * before:  # NaN is not, either
                self.confirm()
        return {**sums, "gradient_norm": norm}

    def confirm(self) -> None:
        """Pass silently if the weights as they are can be trained on; a collective.

        The last minibatch's gradient is computed once more. Where there was none in this process,
        the weights are as they were loaded.

        Raises:
            Diverged: it or its loss is not finite; or the norm of the weights.
        """
        if (last := self._last) is None:
            return
        after = {"the norm of the weights": weights_norm(self.optimizer)}
        if not divergence.not_finite(after):
            with self._unnoticed():
                sums, norm = self._gradients(last.rows, last.loss, last.tokens)
            after = {"the loss": sums.pop(_OBJECTIVE), **sums, "the gradient norm": norm}
        if odd := divergence.not_finite(after):
            tensors = non_finite.weights(self.chunks)
            self.guard.refuse(
                divergence.bad_weights(last.norm, last.before, odd, tensors, last.learning_rate)
            )

    @contextmanager
    def _unnoticed(self) -> Iterator[None]:
        """Leave what a pass counts (tokens by expert, which also moves router biases) as it was."""
        buffers = [buffer for chunk in self.chunks for buffer in unwrap(chunk).buffers()]
        kept = [buffer.clone() for buffer in buffers]
        with self.expert_load.paused():
            yield
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)

    def _gradients(
        self, rows: Sequence[R], loss: Loss[R], tokens: int
    ) -> tuple[dict[str, float], float]:
        """Compute the gradient of a minibatch; return its metrics over all ranks, and its norm."""
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        sums = run_schedule(self.chunks, rows, self._step(loss, tokens), forward_only=False)
        return _sum_over_ranks(sums), ready_gradients(self.optimizer)

    def _step(self, loss: Loss[R], tokens: int) -> Callable[..., Any]:
        def step(pending: Iterator[R], chunk: torch.nn.Module) -> tuple[Tensor, Callable[..., Any]]:
            row = next(pending)
            model = unwrap(chunk)

            def row_loss(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                value, metrics = self._loss(loss, model, hidden, row)
                # megatron divides gradients by the real tokens of all rows and ranks, which also
                # is the right weight for the router's balance loss; `loss` has its own weights.
                metrics = {**metrics, _OBJECTIVE: value.detach()}
                return value * tokens, _real_tokens(row.packed), metrics

            return hidden_states(chunk, row.packed), row_loss

        return step

    def _loss(
        self, loss: Loss[R], model: GPTBackbone, hidden: Tensor, row: R
    ) -> tuple[Tensor, dict[str, Tensor]]:
        trunk, *depths = hidden.chunk(model.depths())
        value, metrics = loss(self.head.outputs(model, trunk, row.packed), row)
        if depths:
            mtp = cast(TokenLogProbs, self.head).mtp_loss(model, depths, cast(WeightedRow, row))
            value = value + self._mtp_weight * mtp
            metrics = {**metrics, "mtp_loss": mtp.detach()}
        return value, metrics


def _set_mtp_mode(chunk: GPTBackbone, mode: MtpMode) -> None:
    """Set the mode; a prediction head without a loss gets neither gradient nor weight decay."""
    chunk.mtp_mode = mode
    if chunk.mtp_process and mode == "off":
        chunk.mtp.requires_grad_(False)


def _real_tokens(row: PackedRow) -> Tensor:
    """Return the number of tokens of this rank's part that are no padding, int32 scalar."""
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
    """Return the options of megatron's HybridDeviceOptimizer; none where nothing is offloaded.

    Never run: there is nothing to offload without a GPU.
    """
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
