"""What the rollouts and evaluations of a run have to be made by, step after step.

A start of a run begins at a :class:`Place`, which its checkpoint keeps. From there on trainer and
sampler go from step to step each with a :class:`Lineage` of its own, and come to the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Self

from engine.config.choice import own_code
from engine.config.leaves import leaves
from engine.rollout.made_by import (
    POSITION,
    ROUNDING,
    TRAINED_WITH,
    WEIGHTS,
    Difference,
    Settings,
    differences,
    without,
)
from engine.rollout.store import RolloutStore, StepSummary


@dataclass(frozen=True)
class Place:
    """A point between two steps of a run: what its weights have been trained on.

    Attributes:
        version: updates so far; the number of the next step.
        prompts: prompts that the steps so far have taken: the next one's place in the set.
        order: digest of the prompt set, and the seed of its order: what ``prompts`` counts in.
        history: digest of the model at the start and of every rollout since.
        trained_with: settings of the last update, by key of the configuration.
    """

    version: int
    prompts: int
    order: str
    history: str
    trained_with: Settings = field(default_factory=dict)

    @classmethod
    def beginning(cls, model: str, order: str) -> Self:
        """Return where a run begins that has no checkpoint; ``model``: the digest of its folder."""
        return cls(version=0, prompts=0, order=order, history=model)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_json` made the content of."""
        return cls(**content)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, for a checkpoint or a control word."""
        return asdict(self)

    def after(self, rollout: StepSummary, trained_with: Settings) -> Place:
        """Return the place behind the step that trains on ``rollout``."""
        history = blake2b(f"{self.history} {rollout.digest}".encode(), digest_size=16).hexdigest()
        return Place(
            version=self.version + 1,
            prompts=self.prompts + rollout.groups,
            order=self.order,
            history=history,
            trained_with=trained_with,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What ``made_by.json`` says of the weights."""
        return {
            f"{WEIGHTS}version": self.version,
            f"{WEIGHTS}history": self.history,
            **{TRAINED_WITH + key: value for key, value in self.trained_with.items()},
        }


@dataclass(frozen=True)
class Start:
    """A start of a run: trainer rank 0 tells it to the sampler, as JSON.

    Attributes:
        place: of the checkpoint that it goes on from, or of the beginning.
        trained_with: settings of the updates that it will make.
        digests: of model and prompt sets, by key of the configuration.
    """

    place: Place
    trained_with: Settings
    digests: Mapping[str, str]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_json` made the content of."""
        return cls(**{**content, "place": Place.from_json(content["place"])})

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class Lineage:
    """What the step at hand has to be made by, from the place of a start on.

    Args:
        start: where this start begins.
        sections: what has the sections of sampling: the run's configuration or a ``SamplerPlan``.
        stop_token_ids: what ends an answer.

    Attributes:
        place: where the step at hand begins.
    """

    def __init__(self, start: Start, sections: Any, stop_token_ids: Sequence[int]) -> None:
        self.place = start.place
        self._start, self._sections = start, sections
        self._common = {
            "model": start.digests["model"],
            "stop_token_ids": sorted(stop_token_ids),
            "prompts.template": sections.prompts.template,
            **leaves(sections.rewards.model_dump(mode="json"), "rewards"),
            **own_code(sections.rewards, "rewards"),
        }

    def rollout(self) -> Settings:
        """Return what the rollout of the step at hand is made by."""
        sampled = leaves(self._sections.rollout.model_dump(mode="json"), "rollout")
        del sampled["rollout.wait_seconds"]
        return {
            **sampled,
            **self._common,
            "seed": self._sections.seed,
            "prompts.train": self._start.digests["prompts.train"],
            POSITION: self.place.prompts,
            **self.place.settings,
        }

    def evaluation(self) -> Settings:
        """Return what an evaluation of the weights at hand is made by."""
        sampled = leaves(self._sections.evaluation.model_dump(mode="json"), "evaluation")
        del sampled["evaluation.every"]
        return {
            **sampled,
            **self._common,
            "rollout.max_new_tokens": self._sections.rollout.max_new_tokens,
            "prompts.held_out": self._start.digests["prompts.held_out"],
            **self.place.settings,
        }

    def advance(self, rollout: StepSummary) -> None:
        """Go on to the next step; ``rollout`` is what the one at hand trains on."""
        self.place = self.place.after(rollout, self._start.trained_with)

    def why_not(self, store: RolloutStore, wanted: Settings) -> str | None:
        """Return why what ``store`` has of the step at hand is not ``wanted``: a clause, or None.

        Nothing stored is nothing wrong, and rounding is another matter: see :meth:`drift`.
        """
        step = self.place.version
        if not store.has(step):
            return None
        if (stored := store.made_by(step)) is None:
            return "does not say what made it"
        found = differences(without(stored, ROUNDING), without(wanted, ROUNDING))
        more = f" (and {len(found) - 1} settings more)" if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else None

    def drift(self, store: RolloutStore, step: int) -> Difference | None:
        """Return by what the weights of this start may drift from those that sampled ``step``.

        Weights of another layout differ by rounding, which adds up from update to update. Where
        this start begins they are the checkpoint's, whatever layout had made them.

        Returns:
            A setting of the updates between; None where there is none.
        """
        if step <= self._start.place.version or (stored := store.made_by(step)) is None:
            return None
        wanted = {TRAINED_WITH + key: value for key, value in self._start.trained_with.items()}
        rounding = [
            difference
            for difference in differences(stored, {**stored, **wanted})
            if difference.key.startswith(ROUNDING)
        ]
        return rounding[0] if rounding else None


def comparable(one: Settings, other: Settings) -> list[Difference]:
    """Return in what two evaluations differ but the weights that they measure."""
    return differences(*(without(settings, (WEIGHTS, TRAINED_WITH)) for settings in (one, other)))
