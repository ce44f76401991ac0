"""Order of samples in the stream, the same for every loader and layout.

An order is a pure function of the number, so there is no state to save beside the number itself,
and no place at which a run was resumed changes what comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import isqrt

Order = Callable[[int], int]
"""From a number of the stream, counted from 0, to the index of a sample."""

_WORD = (1 << 64) - 1
_ROUNDS = 8


def in_turn(number: int) -> int:
    """Sample n is number n: the order of a source without an end."""
    return number


@dataclass(frozen=True)
class Shuffled:
    """Epoch after epoch of ``samples`` samples, each epoch shuffled anew.

    A shuffled list would take memory for every sample and time for every start. Here each epoch is
    a keyed permutation of 0 ... samples - 1 that is computed number by number: a Feistel network
    over two digits of a mixed radix, walked again while it leaves the range (Black and Rogaway,
    Ciphers with Arbitrary Finite Domains, 2002). Keys are hashes of (seed, epoch): no version of a
    library can change the order.

    Attributes:
        samples: in the source, at least one.
        seed: of the order; the run's seed.
    """

    samples: int
    seed: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"an order needs at least one sample, found {self.samples}")

    def __call__(self, number: int) -> int:
        """Return which sample is ``number`` of the stream: epoch number // samples."""
        epoch, place = divmod(number, self.samples)
        keys = _keys(self.seed, epoch)
        high = isqrt(self.samples - 1) + 1
        low = -(-self.samples // high)  # high x low is samples, or not much more
        while True:
            place = _permuted(place, high, low, keys)
            if place < self.samples:
                return place


@lru_cache(maxsize=4)  # a step touches two epochs at most, as a rule
def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    digest = blake2b(f"order, seed {seed}, epoch {epoch}".encode(), digest_size=8 * _ROUNDS)
    whole = int.from_bytes(digest.digest(), "big")
    return tuple((whole >> 64 * i) & _WORD for i in range(_ROUNDS))


def _permuted(place: int, high: int, low: int, keys: tuple[int, ...]) -> int:
    """Permute 0 ... high x low - 1: each round moves one digit by a hash of the other."""
    left, right = divmod(place, low)
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        left = (left + _mixed(right ^ even)) % high
        right = (right + _mixed(left ^ odd)) % low
    return left * low + right


def _mixed(word: int) -> int:
    """Spread every bit of a 64-bit word over all of them (the finalizer of SplitMix64)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
