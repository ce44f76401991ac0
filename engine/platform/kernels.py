"""Report which implementation computes each operation in this process, as megatron chose it.

megatron takes the optimizer and the gradient norm from Transformer Engine, else from Apex, else
from torch; layers come from Transformer Engine or from ``engine.models.torch_layers``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from engine.platform import accelerator

_MAKERS = {
    "transformer_engine": "Transformer Engine",
    "transformer_engine_torch": "Transformer Engine",
    "apex": "Apex",
    "amp_C": "Apex",
    "torch": "torch",
    "megatron": "torch",
}
"""Package of a function or class -> its library; megatron's own are plain torch."""


def accumulates_gradients_in_place() -> bool:
    """Return whether a linear layer's kernel adds its weight's gradient to the float32 buffer.

    Transformer Engine's layers can; torch's need Apex's kernel for it.
    """
    return accelerator.has_transformer_engine() or (
        accelerator.has_gpu() and find_spec("fused_weight_gradient_mlp_cuda") is not None
    )


def kernels(fp8: str = "none", grouped_experts: bool | None = None) -> dict[str, str]:
    """Return operation -> what computes it; after :func:`engine.platform.accelerator.prepare`.

    Args:
        fp8: recipe of the linear layers.
        grouped_experts: what is asked for; None for this device's default.
    """
    from megatron.core import optimizer
    from megatron.core.optimizer import clip_grads

    engine = accelerator.has_transformer_engine()
    layers = "Transformer Engine" if engine else "torch"
    grouped = engine if grouped_experts is None else grouped_experts
    return {
        "attention": layers if engine else "torch scaled_dot_product_attention",
        "linear": layers,
        "fp8": fp8,
        "norm": layers,
        "experts": f"{layers}, {'grouped' if grouped else 'one after the other'}",
        "permutation": layers,
        "output layer": "torch, chunk by chunk",
        "optimizer": f"{maker(optimizer.Adam)} {optimizer.Adam.__name__}",
        "gradient norm": maker(clip_grads.l2_norm_impl),
        "gradient accumulation": _accumulation(layers),
    }


def _accumulation(layers: str) -> str:
    if not accumulates_gradients_in_place():
        return "torch, beside the product"
    return f"{'Apex' if layers == 'torch' else layers}, in the product"


def maker(implementation: Any) -> str:
    """Return the library of a function or class: ``Transformer Engine``, ``Apex`` or ``torch``."""
    package = (implementation.__module__ or "").partition(".")[0]
    return _MAKERS.get(package, package)


def line(serving: dict[str, str]) -> str:
    """Return a line for the log: ``kernels: attention: Transformer Engine; fp8: none; ...``."""
    return "kernels: " + "; ".join(f"{what}: {who}" for what, who in serving.items())
