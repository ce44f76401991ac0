"""Digests of tensors: dtype, shape, BLAKE3 digest of the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from torch import Tensor

from engine.errors import RunError
from engine.weights.safetensors_file import bytes_of


@dataclass(frozen=True)
class TensorDigest:
    """Digest of a tensor; equal for two exactly when dtype, shape and every bit are."""

    dtype: str
    shape: tuple[int, ...]
    blake3: str

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> TensorDigest:
        """Return the digest that :meth:`as_json` gave as JSON values.

        Raises:
            RunError: it did not, or another version's did.
        """
        try:
            return cls(found["dtype"], tuple(found["shape"]), found["blake3"])
        except (KeyError, TypeError) as error:
            raise RunError(
                f"a tensor's record is damaged, or another version wrote it: {error!r} in {found}"
            ) from None


def tensor_digest(tensor: Tensor) -> TensorDigest:
    """Return the digest of ``tensor``, which is on the CPU."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorDigest(dtype, tuple(tensor.shape), blake3(bytes_of(tensor)).hexdigest())
