"""Check what the problems are: repeated, contradicted, too few, or without hope of a reward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from engine.config.sampler import EvaluationConfig, PromptsConfig, RolloutConfig
from engine.data.templates import apply_template
from engine.preflight.finding import Finding, warning
from engine.preflight.given_prompts import GivenPrompts
from engine.preflight.sections import Sections
from engine.preflight.wording import lines
from engine.rewards.table import RewardsConfig


def check_contents(sections: Sections, given: Sequence[GivenPrompts]) -> Iterable[Finding]:
    """Look for what a run can do but nobody means."""
    for one in given:
        yield from _repeated(one)
        yield from _counted(sections, one)
        yield from _rewarded(sections, one)
    if len(given) == 2:
        yield from _held_out(*given)
    yield from _weighted(sections)


def _questions(given: GivenPrompts) -> dict[str, list[int]]:
    """Return the indices of the prompts by question, whatever the space in it is."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(given.file.prompts):
        found[" ".join(prompt.prompt.split())].append(index)
    return found


def _repeated(given: GivenPrompts) -> Iterator[Finding]:
    """Warn of questions that stand in the file several times."""
    prompts, numbers = given.file.prompts, given.file.lines
    same, contradicted = list[list[int]](), list[list[int]]()
    for indices in _questions(given).values():
        if len(indices) > 1:
            answers = {prompts[index].answer.strip() for index in indices}
            (same if len(answers) == 1 else contradicted).append(indices)
    if same:
        extra = sum(len(indices) - 1 for indices in same)
        yield warning(
            given.key,
            f"{given.file.path}: {extra:,} of {len(prompts):,} problems are there several times"
            f" with the same answer, the first of them on {_first(same, numbers)}; they weigh more",
        )
    if contradicted:
        yield warning(
            given.key,
            f"{given.file.path}: {_many(contradicted, 'question is', 'questions are')} there with"
            f" different answers, the first of them on {_first(contradicted, numbers)}; no policy"
            " can be right about both",
        )


def _many(groups: Sequence[object], one: str, several: str) -> str:
    return f"{len(groups):,} {one if len(groups) == 1 else several}"


def _first(groups: Sequence[Sequence[int]], numbers: Sequence[int]) -> str:
    return lines([numbers[index] for index in groups[0]])


def _held_out(train: GivenPrompts, held_out: GivenPrompts) -> Iterator[Finding]:
    """Refuse held-out problems that are trained on: an evaluation would measure memory."""
    learned, numbers = _questions(train), held_out.file.lines
    both = [
        (numbers[index], train.file.lines[learned[question][0]])
        for question, indices in _questions(held_out).items()
        if question in learned
        for index in indices
    ]
    if both:
        both.sort()
        where = lines([number for number, _ in both])
        yield Finding(
            held_out.key,
            f"expected problems that are not in prompts.train, found {len(both):,} of"
            f" {len(held_out.file.prompts):,} there: {where} of {held_out.file.path} (the first is"
            f" line {both[0][1]} of {train.file.path}); drop them from one of the two",
        )


def _counted(sections: Sections, given: GivenPrompts) -> Iterator[Finding]:
    """Refuse an evaluation of more problems than there are; warn of a step that repeats some."""
    if given.file.problems:  # with those lines put right there are more
        return
    many = len(given.file.prompts)
    evaluation = sections.get("evaluation", EvaluationConfig)
    if given.key == ("prompts", "held_out"):
        if evaluation is not None and evaluation.prompts > many:
            yield Finding(
                ("evaluation", "prompts"),
                f"expected at most the {many:,} held-out problems of {given.file.path}, found"
                f" {evaluation.prompts:,}",
            )
        return
    rollout = sections.get("rollout", RolloutConfig)
    if rollout is not None and rollout.prompts_per_step > many:
        yield warning(
            ("rollout", "prompts_per_step"),
            f"each step asks some of the {many:,} problems of {given.file.path} several times, as"
            f" prompts_per_step is {rollout.prompts_per_step:,}",
        )


def _weighted(sections: Sections) -> Iterator[Finding]:
    """Refuse rewards that all weigh nothing: every answer would be worth the same."""
    rewards = sections.get("rewards", RewardsConfig)
    if rewards is not None and not any(one.weight for one in rewards.chosen.values()):
        yield Finding(
            ("rewards",),
            f"expected a weight above 0, found 0 for {', '.join(rewards.chosen)}: every answer"
            " would be worth the same, and nothing be learned",
        )


def _rewarded(sections: Sections, given: GivenPrompts) -> Iterator[Finding]:
    """Refuse a reward that no problem of the set can earn; warn where some cannot."""
    prompts, rewards = (
        sections.get("prompts", PromptsConfig),
        sections.get("rewards", RewardsConfig),
    )
    if prompts is None or rewards is None:
        return
    asked = [apply_template(prompts.template, one.prompt) for one in given.file.prompts]
    for name, reward in rewards.chosen.items():
        found = [
            (given.file.lines[index], why)
            for index, one in enumerate(given.file.prompts)
            if (why := reward.hopeless(asked[index], one.answer)) is not None
        ]
        if not found:
            continue
        says = (
            f"no answer to {len(found):,} of {len(asked):,} problems of {given.file.path} can earn"
            f" it, {lines([number for number, _ in found])}: {found[0][1]}"
        )
        all_of_it = len(found) == len(asked) and reward.weight > 0
        yield Finding(("rewards", name), says, refuses=all_of_it)
