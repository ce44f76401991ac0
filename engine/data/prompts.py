"""Prompt sets: questions with reference answers from a file, in a shuffled order per epoch.

The order is a pure function of (seed, epoch, prompt id): no random state is carried along, so a run
that is resumed, or laid out over other processes, asks the same questions at the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from engine.data.prompt_file import Prompt, PromptFile, read_prompt_file
from engine.errors import RunError


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


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Return the prompts of a file in which every line is right; see :meth:`PromptSet.load`."""
    return right_prompts(read_prompt_file(path))


def right_prompts(file: PromptFile) -> tuple[Prompt, ...]:
    """Return all prompts of ``file``; RunError with file and line if a line is wrong."""
    if file.problems:
        first, more = file.problems[0], len(file.problems) - 1
        others = f" ({more} more lines are wrong)" if more else ""
        raise RunError(f"{file.path}, line {first.line}: {first.says}{others}")
    return file.prompts
