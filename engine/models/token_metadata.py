"""Metadata of tokens for routers: whether a token is padding, and the number of its sample.

megatron-core hands one thing about tokens down to the routers, ``padding_mask``, and turns it into
booleans on the way (moe_layer.py:386), recomputation of activations included. So metadata
are booleans, [..., tokens, 1 + bits]: first whether the token is padding, then the number of its
sample in binary, the lowest bit first. The width tells how many samples a row may have, without a
look at the device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_metadata(padding_mask: Tensor, samples: Tensor, count: int) -> Tensor:
    """Return the metadata of a row's tokens.

    Args:
        padding_mask: [tokens] bool, True on padding.
        samples: [tokens] int64, the number of each token's sample, from 0.
        count: samples of the row, dummy samples of padding included.

    Returns:
        [tokens, 1 + bits] bool.
    """
    bits = torch.arange(max(1, (count - 1).bit_length()), device=samples.device)
    number = (samples[:, None] >> bits) & 1
    return torch.cat([padding_mask[:, None], number.bool()], dim=1)


def padding_of(metadata: Tensor) -> Tensor:
    """Return the padding mask of [..., tokens, 1 + bits]: [..., tokens] bool, True on padding."""
    return metadata[..., 0]


def with_padding(metadata: Tensor, padding_mask: Tensor) -> Tensor:
    """Return the same metadata with another padding mask [..., tokens]."""
    return torch.cat([padding_mask.unsqueeze(-1), metadata[..., 1:]], dim=-1)


def sample_of(metadata: Tensor) -> Tensor:
    """Return the number of each token's sample, [..., tokens] int64, of [..., tokens, 1 + bits]."""
    bits = torch.arange(metadata.shape[-1] - 1, device=metadata.device)
    return (metadata[..., 1:].long() << bits).sum(-1)


def most_samples(metadata: Tensor) -> int:
    """Return how many sample numbers the metadata can hold."""
    return int(2 ** (metadata.shape[-1] - 1))
