"""The gate before RL: the base model's probability of the full traces of held-out problems.

A base that cannot do one step samples no full trace for rewards to reinforce: RL then teaches it
only the format and shorter answers. So the log-probabilities of a problem's full trace are
computed: the product of the probabilities of the tokens that the problem determines is the chance
of getting from the problem to the right answer in full steps. The corpus itself slips in 3 % of the
results, so about 0.87 at five operations is the most that a perfect model of it reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from engine.config.section import Section
from engine.errors import RunError
from recipes.chain_task.answers import full_trace
from recipes.chain_task.problems import LABELS, Problem, ProblemsConfig, different_problems
from recipes.chain_task.vocabulary import DIGITS, ENGLISH, Language, encode

if TYPE_CHECKING:
    from engine.run.run import Run
    from engine.training.trained_model import TrainedModel


class GateConfig(Section):
    """Problems and least probability of the gate."""

    problems: int = Field(ge=1, description="held-out problems asked")
    min_probability: float = Field(
        ge=0, le=1, description="mean probability of a full trace's determined tokens"
    )


_DETERMINED = frozenset({*DIGITS, *LABELS})


@dataclass(frozen=True, slots=True)
class ForcedTrace:
    """A prompt and its full trace as token ids; ``determined[i]`` belongs to ``tokens[i]``.

    Determined are labels and digits (operands, results, the final answer). Not determined is what
    another good answer could have otherwise: tags, the language, whether a result is stated.
    """

    prompt_tokens: list[int]
    tokens: list[int]
    determined: list[bool]


def forced_trace(problem: Problem, language: Language = ENGLISH) -> ForcedTrace:
    """Return the full trace of a problem, ``<think>`` to ``<eos>``, and its determined tokens."""
    words = full_trace(problem, language)
    determined = [word in _DETERMINED for word in words]
    return ForcedTrace(encode(problem.words), encode(words), determined)


def pass_gate(
    run: Run[Any], model: TrainedModel, gate: GateConfig, problems: ProblemsConfig
) -> float:
    """Say and return :func:`gate_probability`.

    Raises:
        RunError: it is less than ``gate.min_probability``.
    """
    probability = gate_probability(run, model, gate, problems)
    if not probability >= gate.min_probability:  # NaN is not, either
        raise RunError(
            f"gate.min_probability: the base gets through a full trace with probability "
            f"{probability:.3f}, {gate.min_probability} is asked; give its first stage more "
            f"steps, or take another seed, in another run_dir"
        )
    run.record.say(f"probability of a full trace, the gate: {probability:.3f}")
    return probability


def gate_probability(
    run: Run[Any], model: TrainedModel, gate: GateConfig, problems: ProblemsConfig
) -> float:
    """Return the mean probability of getting through the full trace of a held-out problem.

    Every rank gets it; a collective.
    """
    chosen = different_problems(problems, held_out=True, count=gate.problems, seed=run.config.seed)
    traces = [forced_trace(problem) for problem in chosen]
    samples = [(trace.prompt_tokens, trace.tokens) for trace in traces]
    found = run.data.log_probabilities(model, samples)
    determined = {n: [i for i, d in enumerate(traces[n].determined) if d] for n in found}
    total = sum(float(logp[determined[n]].sum().exp()) for n, logp in found.items())
    return run.sum_over_ranks(total) / gate.problems
