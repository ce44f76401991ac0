"""Check that a layout is possible, and find the nearest possible one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from itertools import product


@dataclass(frozen=True)
class Sizes:
    """The parallel dimensions of a layout; ``engine.config.layout`` says what each one cuts."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    cp: int = 1
    ep: int = 1
    etp: int = 1


def fills(processes: int, sizes: Sizes) -> bool:
    """Return whether ``processes`` can be divided into these dimensions, the model aside."""
    dense = processes % (sizes.tp * sizes.pp * sizes.cp) == 0
    stage = processes // sizes.pp if processes % sizes.pp == 0 else 0
    experts = stage > 0 and stage % (sizes.ep * sizes.etp) == 0
    return dense and experts and (sizes.vpp == 1 or sizes.pp > 1)


def nearest(
    processes: int, wanted: Sizes, accepts: Callable[[Sizes], bool] = lambda sizes: True
) -> Sizes:
    """Return the possible layout of ``processes`` that changes ``wanted`` least.

    Fewest dimensions changed first, then the smallest change of their logarithms; on a tie, the one
    that cuts less. All dimensions 1 is always possible.

    Args:
        accepts: what else is asked of it, e.g. that the model's sizes divide.
    """
    possible = (s for s in _candidates(processes, wanted) if fills(processes, s) and accepts(s))
    return min(possible, key=lambda sizes: (_distance(wanted, sizes), astuple(sizes)))


def proposal(
    processes: int, wanted: Sizes, accepts: Callable[[Sizes], bool] = lambda sizes: True
) -> str:
    """Return the changes from ``wanted`` to the nearest possible layout: ``tp=2 ep=4``."""
    found = nearest(processes, wanted, accepts)
    names = [field.name for field in fields(Sizes)]
    changed = [name for name in names if getattr(found, name) != getattr(wanted, name)]
    return " ".join(f"{name}={getattr(found, name)}" for name in changed)


def nearest_processes(processes: int, needed: int) -> int:
    """Return the multiple of ``needed`` that is nearest to ``processes``, at least ``needed``."""
    return max(1, round(processes / needed)) * needed


def _candidates(processes: int, wanted: Sizes) -> Iterator[Sizes]:
    divisors = [size for size in range(1, processes + 1) if processes % size == 0]
    virtual = range(1, wanted.vpp + 1)
    for tp, pp, vpp, cp, ep, etp in product(
        *(_kept(wanted.tp, divisors), _kept(wanted.pp, divisors), virtual),
        *(_kept(wanted.cp, divisors), _kept(wanted.ep, divisors), _kept(wanted.etp, divisors)),
    ):
        yield Sizes(tp, pp, vpp, cp, ep, etp)


def _kept(wanted: int, divisors: list[int]) -> list[int]:
    """Return the sizes to try for a dimension; one that is 1 stays 1."""
    return [1] if wanted == 1 else divisors


def _distance(wanted: Sizes, sizes: Sizes) -> tuple[int, float]:
    pairs = list(zip(astuple(wanted), astuple(sizes), strict=True))
    changed = sum(ours != theirs for ours, theirs in pairs)
    return changed, sum(abs(math.log(ours / theirs)) for ours, theirs in pairs)
