"""What a start of a run goes on from: data position, weights, settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.config.choice import own_code
from engine.config.leaves import leaves
from engine.rollout.lineage import Place, Start
from engine.run.result import changes_nothing
from engine.run.run_config import RunConfig

PLACE = "place"
"""Key of a checkpoint's progress: the :class:`Place` behind it."""

_OF_SAMPLES = ("run_dir", "model", "seed", "steps", "prompts", "rollout", "rewards")
_OF_NO_UPDATE = ("evaluation", "parity")


def update_settings(config: RunConfig, kernels: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that decide what an update of the weights makes of a rollout.

    All keys but those of how a rollout is sampled and rewarded, which it says itself, and those
    that change no weights. How many steps there will be decides only where the learning rate
    follows a schedule.

    Args:
        kernels: operation -> what computes it on this machine.
    """
    found = config.model_dump(mode="json")
    settings = {
        key: value
        for key, value in {**leaves(found), **own_code(config)}.items()
        if key.partition(".")[0] not in (*_OF_SAMPLES, *_OF_NO_UPDATE) and not changes_nothing(key)
    }
    if found["optimizer"]["schedule"] != "constant":
        settings["steps"] = found["steps"]
    return {**settings, **leaves(dict(kernels), "kernels")}


def start_of(
    config: Any,
    step: int,
    progress: Mapping[str, Any] | None,
    digests: Mapping[str, str],
    kernels: Mapping[str, str],
    say: Callable[[str], None],
) -> Start:
    """Return where a run that samples goes on.

    Args:
        step: the first one of this start.
        progress: of the checkpoint of ``step``; None where the run begins.
        digests: of the inputs, by key of the configuration.
        say: told what a person should know.
    """
    order = f"{digests['prompts.train']} seed {config.seed}"
    if progress is None:
        place = Place.beginning(digests["model"], order)
    elif PLACE in progress:
        place = Place.from_json(progress[PLACE])
    else:  # of an earlier version, whose steps all had the same number of prompts
        prompts = step * config.rollout.prompts_per_step
        place = Place(step, prompts, order, history=f"unknown before step {step}")
        say(
            f"the checkpoint of step {step} does not say how many prompts were taken before it: "
            f"counted as {step} x rollout.prompts_per_step = {prompts}"
        )
    if place.order != order:
        say("prompts.train or seed is another one than before: a new epoch of prompts begins")
        place = replace(place, prompts=0, order=order)
    return Start(place, update_settings(config, kernels), digests)
