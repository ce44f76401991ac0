"""The Triton kernels over logits, compiled, give what plain torch gives on the same GPU."""

from __future__ import annotations

import pytest
import torch

from engine.training.heads import logit_passes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TOKENS = 64
SIZES = {"Qwen3's words": 151936, "fewer than a block": 1000, "odd, and more than one": 4097}


@pytest.mark.parametrize("words", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_statistics_of_a_shard(words: int, temperature: float) -> None:
    from engine.training.heads import logit_kernels

    products, column = drawn(words)
    found = logit_kernels.statistics_of_shard(products, column, temperature)
    expected = logit_passes.statistics_of_shard(products, column, temperature)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("words", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("entropy", [True, False])
def test_gradient_of_products(words: int, dtype: torch.dtype, entropy: bool) -> None:
    from engine.training.heads import logit_kernels

    products, column = drawn(words)
    _, peak, total, weighted = logit_passes.statistics_of_shard(products.clone(), column, 1.0)
    distribution = torch.stack([peak, total.log(), total.log() - weighted / total])
    of_chosen = torch.randn(TOKENS, device="cuda")
    of_entropy = torch.randn(1, device="cuda").expand(TOKENS) if entropy else None
    arguments = (column, distribution, of_chosen, of_entropy, 1.0, dtype)
    found = logit_kernels.gradient_of_products(products.clone(), *arguments)
    expected = logit_passes.gradient_of_products(products.clone(), *arguments)
    rtol = 1e-2 if dtype == torch.bfloat16 else 2e-5
    torch.testing.assert_close(found, expected, rtol=rtol, atol=2e-5)


def drawn(words: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Products [t, V] of a model that is sometimes sure, and targets, some other ranks'."""
    generator = torch.Generator("cuda").manual_seed(0)
    products = 5 * torch.randn(TOKENS, words, device="cuda", generator=generator)
    column = torch.randint(-3, words + 3, (TOKENS,), device="cuda", generator=generator)
    return products, column
