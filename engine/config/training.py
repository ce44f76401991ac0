"""Section ``training``: precision, memory and speed of the forward and backward passes.

Most keys trade memory against time and, in float32, change no number. Precision
(``dtype``, ``fp8``) is the exception. A combination that cannot run is refused here, if the keys
alone tell; :mod:`engine.config.training_layout` checks them against the layout, and
:mod:`engine.platform.precision` against the hardware and the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.fp8 import Fp8Recipe
from engine.config.section import Section

RecomputedModule = Literal[
    "core_attn", "layernorm", "mla_up_proj", "mlp", "moe", "moe_act", "shared_experts"
]

_NO_FP8_PARAMETERS = {
    "none": "nothing multiplies them",
    "delayed": "the first weights would be rounded with scales that no earlier step has set",
    "mxfp8": "megatron-core gathers them in bfloat16, in the gradients' buffers",
}


class TrainingConfig(Section):
    """Precision, memory and speed of the training passes."""

    dtype: Literal["float32", "bfloat16"] = Field(
        description="type of parameters and activations; gradients are reduced in float32"
    )
    tokens_per_microbatch: int = Field(
        ge=1,
        description="tokens packed into one microbatch, prompts included; bounds the memory",
    )
    logits_chunk_tokens: int = Field(
        1024,
        ge=1,
        description="tokens whose logits are held at once; bounds the memory of the output layer",
    )
    mtp_loss_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the multi-token prediction loss, averaged over depths (DeepSeek-V3: "
        "0.3, later 0.1); 0 leaves the prediction head as it is",
    )
    recompute: Literal["none", "selective", "full"] = Field(
        "none",
        description="activations that are dropped after the forward pass and computed again in the "
        "backward pass: selective drops cheap ones that take much memory, full keeps nothing but "
        "the layers' inputs, for about a third more computation",
    )
    recompute_modules: tuple[RecomputedModule, ...] | None = Field(
        None,
        description="what selective recomputes; default: what DeepSeek-V3 does, norms, MLA's "
        "up-projections and the experts' activation function, as far as the model has them",
    )
    recompute_layers: int = Field(
        1, ge=1, description="layers between two inputs that full keeps; more save more memory"
    )
    overlap_grad_reduce: bool = Field(
        False,
        description="sum gradients over data-parallel ranks while the backward pass still runs",
    )
    overlap_param_gather: bool = Field(
        False,
        description="fetch the parameters that other ranks updated while the next forward pass "
        "already runs, instead of before it; needs overlap_grad_reduce",
    )
    bucket_parameters: int | None = Field(
        None,
        ge=1,
        description="parameters that are sent together where communication overlaps; small buckets "
        "start early, large ones use the network better; default: megatron's, at least 40 million",
    )
    dispatcher: Literal["alltoall", "allgather"] = Field(
        "alltoall",
        description="how tokens reach their experts: alltoall sends each where it goes, allgather "
        "shows every rank all of them (pays for few ranks and many experts per token), and pads "
        "every row to tokens_per_microbatch",
    )

    grouped_experts: bool | None = Field(
        None,
        description="compute all experts of a rank in one grouped matrix product instead of one "
        "after the other; default: where a GPU is, which knows no other way here",
    )
    optimizer_offload: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the optimizer's state and of its work that a GPU's host takes over: "
        "12 bytes less on the GPU for each of these parameters, for a slower update",
    )
    fp8: Fp8Recipe = Field(
        "none",
        description="linear layers multiply in FP8; embedding, router, norms and output layer stay "
        "as they are. How values are scaled: blockwise in tiles of 1 x 128 and 128 x 128 as "
        "DeepSeek-V3 (Hopper), tensorwise by each tensor's own maximum, delayed by maxima of "
        "earlier steps, mxfp8 in 32s (Blackwell)",
    )
    fp8_bfloat16_layers: int = Field(
        0,
        ge=0,
        description="so many first and so many last layers stay in bfloat16, where FP8 hurts most",
    )

    fp8_parameters: bool = Field(
        False,
        description="keep the weights that are multiplied in FP8 in nothing but FP8, under the "
        "optimizer's float32 master weights: saves their bfloat16 copy (2 bytes each), rounding "
        "them for every pass, and half of what data-parallel ranks send after an update; servers "
        "then get the rounded values. Needs fp8 blockwise or tensorwise (never run in a whole "
        "model)",
    )

    @property
    def products(self) -> str:
        """Precision of the linear layers' matrix products: ``fp8``, or ``dtype``.

        Utilisation is measured against it; layers that ``fp8_bfloat16_layers`` keeps count, too.
        """
        return self.dtype if self.fp8 == "none" else "fp8"

    @property
    def recomputed(self) -> tuple[RecomputedModule, ...]:
        """Modules that selective recomputation drops where the model has them; else none.

        The default is DeepSeek-V3's choice (arXiv 2412.19437, section 3.2.3), less what delayed
        scales would count a second time in the second forward pass.
        """
        if self.recompute != "selective":
            return ()
        if self.recompute_modules is not None:
            return self.recompute_modules
        if self.fp8 == "delayed":
            return ("mla_up_proj",)
        return ("layernorm", "moe_act", "mla_up_proj")

    @field_validator("optimizer_offload")
    @classmethod
    def _offload_has_copies(cls, share: float, info: ValidationInfo) -> float:
        # hybrid_optimizer.py:350 of megatron-core 0.16.1 restores only what it keeps a copy of.
        if share and info.data.get("dtype") == "float32":
            raise ValueError(f"expected 0 where dtype is float32, found {share:g}")
        return share

    @field_validator("fp8")
    @classmethod
    def _fp8_stands_beside_bfloat16(cls, fp8: Fp8Recipe, info: ValidationInfo) -> Fp8Recipe:
        if fp8 == "none":
            return fp8
        if info.data.get("dtype") == "float32":
            raise ValueError(f"expected none where dtype is float32, found {fp8}")
        dropped = {"layernorm", "moe_act"} & set(info.data.get("recompute_modules") or ())
        if fp8 == "delayed" and dropped:
            raise ValueError(
                f"expected another recipe where recompute_modules has {_list(sorted(dropped))}: "
                "scales of earlier steps cannot be told apart from those of a second forward "
                "pass; found delayed"
            )
        return fp8

    @field_validator("fp8_bfloat16_layers")
    @classmethod
    def _kept_layers_belong_to_fp8(cls, layers: int, info: ValidationInfo) -> int:
        recipe = info.data.get("fp8")
        if layers and recipe in ("none", "delayed"):
            raise ValueError(f"expected 0 where fp8 is {recipe}, found {layers}")
        return layers

    @field_validator("fp8_parameters")
    @classmethod
    def _fp8_parameters_have_master_weights(cls, wanted: bool, info: ValidationInfo) -> bool:
        if not wanted:
            return wanted
        if (recipe := info.data.get("fp8")) in _NO_FP8_PARAMETERS:
            why = _NO_FP8_PARAMETERS[recipe]
            raise ValueError(f"expected false where fp8 is {recipe}: {why}; found true")
        if share := info.data.get("optimizer_offload"):
            raise ValueError(
                f"expected false where optimizer_offload is {share:g}: master weights on the "
                "host start from rounded weights; found true"
            )
        if info.data.get("overlap_param_gather"):
            # megatron transposes weights where it waits for them (param_and_grad_buffer.py:362),
            # not where a checkpoint does (distributed_data_parallel.py:478).
            raise ValueError(
                "expected false where overlap_param_gather is true: a checkpoint would leave "
                "transposed weights out of date; found true"
            )
        return wanted

    @field_validator("recompute_modules")
    @classmethod
    def _modules_belong_to_selective(
        cls, modules: tuple[RecomputedModule, ...] | None, info: ValidationInfo
    ) -> tuple[RecomputedModule, ...] | None:
        recompute = info.data.get("recompute")
        if modules is not None and recompute in ("none", "full"):
            raise ValueError(
                f"expected null where recompute is {recompute}, found {_list(modules)}"
            )
        if modules == ():
            raise ValueError("expected at least one module, found none; or set recompute: none")
        return modules

    @field_validator("recompute_layers")
    @classmethod
    def _layers_belong_to_full(cls, layers: int, info: ValidationInfo) -> int:
        recompute = info.data.get("recompute")
        if layers > 1 and recompute in ("none", "selective"):
            raise ValueError(f"expected 1 where recompute is {recompute}, found {layers}")
        return layers

    @field_validator("overlap_param_gather")
    @classmethod
    def _gather_has_buckets(cls, overlap: bool, info: ValidationInfo) -> bool:
        # Without them the first module would wait for every parameter: nothing overlaps.
        if overlap and info.data.get("overlap_grad_reduce") is False:
            raise ValueError("expected overlap_grad_reduce: true beside it, found false")
        return overlap

    @field_validator("bucket_parameters")
    @classmethod
    def _buckets_belong_to_overlap(cls, size: int | None, info: ValidationInfo) -> int | None:
        if size is not None and info.data.get("overlap_grad_reduce") is False:
            raise ValueError(f"expected null where overlap_grad_reduce is false, found {size}")
        return size


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
