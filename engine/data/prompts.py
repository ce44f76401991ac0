"""Prompt sets: questions with reference answers from a file, in a shuffled order per epoch.

The order is a pure function of (seed, epoch, prompt id): no random state is carried along, so a run
that is resumed, or laid out over other processes, asks the same questions at the same steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from engine.errors import RunError


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question: ``prompt`` is its text before any template, ``answer`` the reference answer."""

    id: str
    prompt: str
    answer: str


class PromptSet:
    """The prompts of one JSONL file, in an order shuffled anew for every epoch.

    Args:
        prompts: at least one, with different ids.
        seed: of the order; the run's seed.
        name: what messages call the set, usually its path.
    """

    def __init__(self, prompts: Iterable[Prompt], *, seed: int, name: str) -> None:
        self._prompts = tuple(prompts)
        self._seed = seed
        self._name = name
        if not self._prompts:
            raise RunError(f"{name}: expected at least one prompt, found none")
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a step touches at most two, as a rule

    @classmethod
    def load(cls, path: Path, *, seed: int) -> PromptSet:
        """Read a JSONL file of objects with the texts ``id``, ``prompt`` and ``answer``.

        Other keys are left alone. Raises RunError with file and line for anything else.
        """
        return cls(read_prompts(path), seed=seed, name=str(path))

    def __len__(self) -> int:
        return len(self._prompts)

    def take(self, place: int, count: int) -> list[Prompt]:
        """Return the ``count`` prompts from ``place`` on, which counts prompts over all epochs.

        Within an epoch no prompt comes twice, and where the set runs out the next epoch begins
        (only there can one step hold a prompt twice).
        """
        return [self._at(at) for at in range(place, place + count)]

    def fixed_subset(self, count: int) -> list[Prompt]:
        """Return the same ``count`` prompts whatever the seed, so that evaluations compare.

        Raises RunError if the set has fewer.
        """
        if count > len(self):
            raise RunError(f"{self._name}: {count} prompts are asked for, it has {len(self)}")
        return _by_hash(self._prompts, "fixed subset")[:count]

    def _at(self, place: int) -> Prompt:
        epoch, index = divmod(place, len(self))
        return self._order(epoch)[index]

    def _shuffled(self, epoch: int) -> list[Prompt]:
        return _by_hash(self._prompts, f"seed {self._seed} epoch {epoch}")


def _by_hash(prompts: Iterable[Prompt], salt: str) -> list[Prompt]:
    """Sort by a hash of salt and id: a shuffle that no library version can change."""
    key = blake2b(salt.encode(), digest_size=32).digest()
    return sorted(prompts, key=lambda prompt: blake2b(prompt.id.encode(), key=key).digest())


def read_prompts(path: Path) -> list[Prompt]:
    """Read and check a prompt file; see :meth:`PromptSet.load`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path}: cannot read the prompt set ({error.strerror})") from error
    prompts: list[Prompt] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        prompt = _parse(line, where=f"{path}, line {number}")
        first = line_of_id.setdefault(prompt.id, number)
        if first != number:
            raise RunError(f"{path}, line {number}: id {prompt.id!r} is that of line {first}")
        prompts.append(prompt)
    return prompts


def _parse(line: bytes, *, where: str) -> Prompt:
    try:
        record = json.loads(line)
    except ValueError as error:  # not UTF-8, or not JSON
        raise RunError(f"{where}: expected a JSON object, found {line[:60]!r}") from error
    if not isinstance(record, dict):
        raise RunError(f"{where}: expected a JSON object, found {line[:60]!r}")
    for key in ("id", "prompt", "answer"):
        if key not in record:
            raise RunError(f"{where}: key {key!r} is missing; id, prompt and answer are needed")
        value = record[key]
        if not isinstance(value, str) or not value.strip():
            raise RunError(f"{where}: {key!r} must be a text that is not empty, found {value!r}")
    return Prompt(record["id"], record["prompt"], record["answer"])
