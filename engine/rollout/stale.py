"""Discard the stored steps that a start of a run cannot use, before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

from engine.rollout.lineage import Lineage
from engine.rollout.made_by import Settings
from engine.rollout.store import RolloutStore


def discard_stale(
    rollouts: RolloutStore,
    evaluations: RolloutStore,
    lineage: Lineage,
    steps: int,
    say: Callable[[str], None],
) -> frozenset[int]:
    """Remove what was not made as this start would make it or is damaged, and all after it.

    Steps before the start's place are left alone. Of a rollout that is not whole the finished
    groups stay, if their settings are equal; what was sampled after it does not: it was sampled
    by weights that had learned what the others of its groups were.

    Args:
        lineage: at the place where this start begins; it is left there.
        steps: how many the run has; what is stored beyond is another start's business.
        say: told in words what is sampled again, and why.

    Returns:
        The rollouts that are whole and stay: they are replayed.
    """
    lineage = copy(lineage)
    kept = set()
    while (step := lineage.place.version) <= steps:
        _discard(evaluations, "evaluation of version", lineage, lineage.evaluation(), say)
        if step == steps:
            break
        _discard(rollouts, "rollout", lineage, lineage.rollout(), say)
        if (summary := rollouts.summary(step)) is None:
            for what in discard_after(rollouts, evaluations, step):
                say(f"{what} came after it: sampled again, too")
            break
        kept.add(step)
        lineage.advance(summary)
    return frozenset(kept)


def _discard(
    store: RolloutStore, kind: str, lineage: Lineage, wanted: Settings, say: Callable[[str], None]
) -> None:
    step = lineage.place.version
    if why := lineage.why_not(store, wanted) or store.damage(step):
        say(f"{kind} {step} {why}: it is sampled again")
        store.discard(step)


def discard_after(rollouts: RolloutStore, evaluations: RolloutStore, step: int) -> list[str]:
    """Remove what is stored of later steps than ``step``; return in words what it was."""
    found = []
    for store, kind in ((rollouts, "rollout"), (evaluations, "evaluation of version")):
        after = [stored for stored in store.stored() if stored > step]
        for stored in reversed(after):
            store.discard(stored)
        if after:
            found.append(f"{kind} {span(after)}")
    return found


def span(steps: Sequence[int]) -> str:
    """Return steps that follow each other in words, e.g. ``3 to 5``."""
    return f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
