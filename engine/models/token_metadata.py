"""What a router has to know of each token: whether it is padding, and whose sample's it is.

megatron-core hands one thing about tokens down to the routers, ``padding_mask``, and turns it into
booleans on the way (moe_layer.py:386), recomputation of activations included. So marks are
booleans: [..., tokens, 1 + bits], first whether the token is padding, then the number of its sample
in binary, the lowest bit first. The width tells how many samples a row may have, without a look at
the device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_metadata(padding_mask: Tensor, samples: Tensor, count: int) -> Tensor:
    """Mark tokens.

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


def padding_of(marks: Tensor) -> Tensor:
    """[..., tokens, 1 + bits] -> [..., tokens] bool, True on padding."""
    return marks[..., 0]


def with_padding(marks: Tensor, padding_mask: Tensor) -> Tensor:
    """The same marks with another padding mask [..., tokens]."""
    return torch.cat([padding_mask.unsqueeze(-1), marks[..., 1:]], dim=-1)


def sample_of(marks: Tensor) -> Tensor:
    """[..., tokens, 1 + bits] -> [..., tokens] int64, the number of each token's sample."""
    bits = torch.arange(marks.shape[-1] - 1, device=marks.device)
    return (marks[..., 1:].long() << bits).sum(-1)


def most_samples(marks: Tensor) -> int:
    """Sample numbers are below this."""
    return int(2 ** (marks.shape[-1] - 1))
