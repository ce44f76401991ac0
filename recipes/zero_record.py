"""What a Zero run tells of itself: every step's numbers, and the result at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from engine.data.tokenizer import Tokenizer
from engine.models.transformer_config_args import kernels_of
from engine.monitoring import metric_names as names
from engine.monitoring.console import REINFORCEMENT, Console
from engine.monitoring.environment import describe_environment
from engine.monitoring.metrics_file import read_metrics
from engine.monitoring.mfu import gpu_metrics
from engine.monitoring.recorder import METRICS_FILE, Recorder
from engine.monitoring.report import Report, write_report
from engine.monitoring.sample_view import SampleView
from engine.monitoring.summary import EvaluationResult, summarize
from engine.platform import accelerator
from engine.platform.files import replace_json
from engine.rollout.evaluation import evaluate
from engine.rollout.sample import Sample
from engine.rollout.store import RolloutStore
from engine.weights.hugging_face import HuggingFaceFolder
from recipes.step_work import devices, step_work
from recipes.zero_config import ZeroConfig

REFLECTIVE_WORDS = frozenset(
    {"wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate"}
    | {"check", "等"}
)
"""Words by which the paper saw reflection grow (DeepSeek-R1 v2, supplement), and Chinese wait."""


SHOWN_PROBLEMS = 8
"""Held-out problems whose first and last answers stand side by side in the report."""


class ZeroRecord:
    """Rank 0's record of a run."""

    def __init__(self, config: ZeroConfig, first_step: int) -> None:
        """Open the files of ``config.run_dir`` and write environment.json."""
        self.config = config
        replace_json(
            config.run_dir / "environment.json",
            describe_environment(
                device=accelerator.device_name(),
                kernels=kernels_of(config.training),
                layout=config.layout.model_dump(),
            ),
        )
        self.devices = devices(config.layout, config.training)
        self.model = HuggingFaceFolder(config.model).config
        self.tokenizer = Tokenizer.load(config.model)
        self.recorder = Recorder(config.run_dir, first_step)
        self.console = Console(config.steps, REINFORCEMENT, first_step=first_step)
        if first_step:
            self.console.say(f"going on from the checkpoint of step {first_step}")

    def step(
        self,
        step: int,
        samples: Sequence[Sample],
        metrics: Mapping[str, float],
        expert_load: Mapping[int, Sequence[float]],
        evaluation: Sequence[Sample] | None,
        phases: Mapping[str, float],
    ) -> None:
        """Record one step.

        Args:
            samples: of its rollout.
            metrics: of its training.
            expert_load: by layer number, the share of tokens of each expert.
            evaluation: samples of the evaluation at this version, where there was one.
            phases: seconds by phase, of the time since the last step.
        """
        seconds = sum(phases.values())
        rollout = rollout_metrics(samples)
        scalars = {
            **rollout,
            **metrics,
            **(evaluation_metrics(evaluation) if evaluation else {}),
            **{names.SECONDS_PREFIX + phase: value for phase, value in phases.items()},
            names.STEP_SECONDS: seconds,
            names.TOKENS_PER_SECOND: rollout[names.RESPONSE_TOKENS] / seconds,
            **gpu_metrics(
                step_work(self.model, self.config.training, samples),
                update_seconds=phases["update"],
                step_seconds=seconds,
                devices=self.devices,
            ),
        }
        monitoring = self.config.monitoring
        shown = samples[: monitoring.samples] if step % monitoring.samples_every == 0 else []
        self.recorder.record(
            step,
            scalars,
            expert_load={f"layer-{layer}": load for layer, load in expert_load.items()},
            samples=[self._shown(sample) for sample in shown],
        )
        self.console.step(step, scalars)

    def finish(self, evaluations: RolloutStore) -> None:
        """Record the last evaluation; write summary.json and report.html, and say the result."""
        config, run_dir = self.config, self.config.run_dir
        first, last = evaluations.samples(0), evaluations.samples(config.steps)
        lines = read_metrics(run_dir / METRICS_FILE)
        if lines[-1][names.STEP] < config.steps:
            self.recorder.record(config.steps, evaluation_metrics(last))
            lines = read_metrics(run_dir / METRICS_FILE)
        base, final = _result(0, first), _result(config.steps, last)
        summary = summarize(lines, base, final, config.seed)
        replace_json(run_dir / "summary.json", summary)
        report = Report(
            title=f"R1-Zero, seed {config.seed}",
            lines=lines,
            summary=summary,
            settings=config.model_dump(mode="json"),
            environment=json.loads((run_dir / "environment.json").read_text()),
            base=base,
            final=final,
            first_samples=[self._shown(sample) for sample in _one_of_each(first)],
            last_samples=[self._shown(sample) for sample in _one_of_each(last)],
        )
        write_report(run_dir / "report.html", report)
        for line in _table(base, final):
            self.console.say(line)
        self.console.close()
        self.recorder.close()

    def _shown(self, sample: Sample) -> SampleView:
        return SampleView(
            prompt_id=sample.prompt_id,
            prompt=self.tokenizer.decode(sample.prompt_tokens),
            response=sample.text,
            answer=sample.answer,
            outcome=sample.scores["accuracy"].outcome,
            reward=sample.reward,
        )


def rollout_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Means over the samples of a rollout, by metric name."""
    outcomes = Counter(sample.scores["accuracy"].outcome for sample in samples)
    rewards = {
        names.REWARD_PREFIX + kind: fmean(sample.scores[kind].value for sample in samples)
        for kind in samples[0].scores
    }
    return {
        **rewards,
        names.REWARD_MEAN: fmean(sample.reward for sample in samples),
        **{names.OUTCOME_PREFIX + o: count / len(samples) for o, count in outcomes.items()},
        names.RESPONSE_LENGTH: fmean(len(sample.tokens) for sample in samples),
        names.RESPONSE_TOKENS: sum(len(sample.tokens) for sample in samples),
        names.TRUNCATED: fmean(sample.finish_reason == "length" for sample in samples),
        names.REFLECTION: fmean(
            not REFLECTIVE_WORDS.isdisjoint(sample.text.lower().split()) for sample in samples
        ),
    }


def evaluation_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """The results of one evaluation, by metric name."""
    found = evaluate(samples)
    return {
        names.EVALUATION_ACCURACY: found.accuracy,
        names.EVALUATION_FORMAT: found.format_rate,
        names.EVALUATION_RESPONSE_LENGTH: found.response_length,
    }


def _result(version: int, samples: Sequence[Sample]) -> EvaluationResult:
    found = evaluate(samples)
    return EvaluationResult(
        version=version,
        problems=found.prompts,
        samples=found.samples,
        accuracy=found.accuracy,
        format_rate=found.format_rate,
        response_length=found.response_length,
    )


def _one_of_each(samples: Sequence[Sample]) -> list[Sample]:
    """The first answer to each of the first problems: chosen before anybody looked at them."""
    firsts = [sample for sample in samples if sample.index == 0]
    return sorted(firsts, key=lambda sample: sample.group)[:SHOWN_PROBLEMS]


def _table(base: EvaluationResult, final: EvaluationResult) -> list[str]:
    rows = [
        ("", "base", "final"),
        ("accuracy (pass@1)", f"{base.accuracy:.3f}", f"{final.accuracy:.3f}"),
        ("format", f"{base.format_rate:.3f}", f"{final.format_rate:.3f}"),
        ("response length", f"{base.response_length:.1f}", f"{final.response_length:.1f}"),
    ]
    title = f"held-out problems: {final.problems}, answers: {final.samples}"
    return ["", title, *(f"  {name:<20}{one:>8}{two:>8}" for name, one, two in rows)]
