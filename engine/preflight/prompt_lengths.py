"""Hold the tokens of every prompt against all that has to hold prompt and answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.layout import LayoutConfig
from engine.config.reader.keys import KeyPath
from engine.config.sampler import RolloutConfig
from engine.config.servers import ServersConfig
from engine.config.training import TrainingConfig
from engine.data.model_files import read_object
from engine.errors import RunError
from engine.preflight.finding import Finding
from engine.preflight.given_prompts import GivenPrompts
from engine.preflight.sections import Sections
from engine.preflight.wording import NAMED, lines

_SERVERS_OWN = 2
"""Tokens of context and cache that SGLang keeps beside prompt and answer; where they are missing
it cuts the answer and calls that its length limit."""
_SHORTEST_ANSWER = 5
"""SGLang refuses a prompt that does not leave so many tokens, even if fewer are asked for."""


@dataclass(frozen=True)
class _Limit:
    """What has to hold a prompt and its answer.

    Attributes:
        key: of the configuration.
        what: the limit in words, with its number.
        room: tokens of the longest prompt that it holds.
        sets: whose prompts it has to hold.
        needed: the smallest limit for a prompt of so many tokens; None where a run cannot raise it.
    """

    key: KeyPath
    what: str
    room: int
    sets: Sequence[GivenPrompts]
    needed: Callable[[int], int] | None


def check_lengths(sections: Sections, given: Sequence[GivenPrompts]) -> Iterable[Finding]:
    """Refuse prompts without a token, and those that leave no room for an answer."""
    yield from _empty(given)
    rollout = sections.get("rollout", RolloutConfig)
    if rollout is None:
        return
    for limit in _limits(sections, given, rollout.max_new_tokens):
        long = [
            (length, one, index)
            for one in limit.sets
            for index, length in enumerate(one.lengths or ())
            if length > limit.room
        ]
        if long:
            yield Finding(limit.key, _says(limit, rollout.max_new_tokens, long))


def _empty(given: Sequence[GivenPrompts]) -> Iterator[Finding]:
    for one in given:
        found = [one.file.lines[i] for i, length in enumerate(one.lengths or ()) if not length]
        if found:
            says = f"the tokenizer makes no token of {lines(found)}, so that nothing can be asked"
            yield Finding(one.key, f"{one.file.path}: {says}")


def _limits(sections: Sections, given: Sequence[GivenPrompts], new: int) -> Iterator[_Limit]:
    own = max(new, _SHORTEST_ANSWER) + _SERVERS_OWN
    model = sections.get("model", Path)
    context = context_of(model) if model is not None else None
    if context is not None:
        what = f"the model's context of {context:,} tokens"
        yield _Limit(("model",), what, context - own, given, None)
    servers = sections.get("servers", ServersConfig)
    if servers is not None:
        key, cache = ("servers", "max_total_tokens"), servers.max_total_tokens
        yield _Limit(key, f"{cache:,}", cache - own, given, lambda tokens: tokens + own)
    training = sections.get("training", TrainingConfig)
    layout = sections.get("layout", LayoutConfig)
    if training is not None and layout is not None:
        key, row = ("training", "tokens_per_microbatch"), training.tokens_per_microbatch
        multiple = layout.sample_multiple  # a sample takes its tokens but the last, padded to it
        room = row // multiple * multiple + 1 - new
        train = [one for one in given if one.key == ("prompts", "train")]
        yield _Limit(
            key,
            f"{row:,}",
            room,
            train,
            lambda tokens: -(-(tokens + new - 1) // multiple) * multiple,
        )


def _says(limit: _Limit, new: int, long: list[tuple[int, GivenPrompts, int]]) -> str:
    named = "; ".join(
        f"{one.line(index)} (id {one.file.prompts[index].id!r}, {length:,} tokens)"
        for length, one, index in long[:NAMED]
    )
    more = f"; and {len(long) - NAMED:,} more" if len(long) > NAMED else ""
    longest = max(length for length, _, _ in long)
    shorter = new - (longest - limit.room)
    ways = [f"raise it to {limit.needed(longest):,}"] if limit.needed else ["drop them"]
    ways += [f"lower rollout.max_new_tokens to {shorter:,}"] if shorter > 0 else []
    return (
        f"{limit.what} has room for prompts of {max(limit.room, 0):,} tokens beside"
        f" rollout.max_new_tokens = {new:,}, found {len(long):,} longer: {named}{more};"
        f" {', or '.join(ways)}"
    )


def context_of(model: Path) -> int | None:
    """Return the tokens of the model's context as SGLang reads config.json; None if it has none."""
    try:
        config = read_object(model / "config.json")
    except RunError:  # told where the folder is checked
        return None
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if "original_max_position_embeddings" in scaling or kind == "llama3":
        return positions
    return int(positions * (scaling.get("factor") or 1))
