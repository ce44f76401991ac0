"""Record of a run that samples: metrics of every step, summary.json and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.data.tokenizer import Tokenizer
from engine.monitoring import metric_names as names
from engine.monitoring.console import comparison_table
from engine.monitoring.metrics_file import METRICS_FILE, read_metrics
from engine.monitoring.report import Report, write_report
from engine.monitoring.sample_view import SampleView
from engine.monitoring.summary import summarize
from engine.platform.files import replace_json
from engine.rollout.evaluation import evaluate
from engine.rollout.lineage import comparable
from engine.rollout.metrics import evaluation_metrics, rollout_metrics
from engine.rollout.sample import Sample
from engine.rollout.sample_views import first_answers, sample_view
from engine.rollout.store import RolloutStore
from engine.run.record import Record
from engine.run.rollout_batch import RolloutBatch
from engine.run.step import Step
from engine.run.step_work import step_work
from engine.weights.hugging_face import HuggingFaceFolder

SHOWN_PROBLEMS = 8
"""Held-out problems whose first and last answers stand side by side in the report."""


class RolloutRecord:
    """Rank 0's view of rollouts and evaluations.

    Args:
        config: the run's configuration, with the sections of sampling.
        recipe: the recipe's module, for the report's title.
    """

    def __init__(self, config: Any, recipe: str) -> None:
        self._config, self._recipe = config, recipe
        self._model = HuggingFaceFolder(config.model).config
        self._tokenizer = Tokenizer.load(config.model)

    def log(
        self,
        step: Step,
        batch: RolloutBatch,
        updates: Sequence[Mapping[str, float]],
        rate: float,
        sampling_seconds: float,
        evaluation: Sequence[Sample] | None,
    ) -> None:
        """Put into ``step`` what is recorded of it.

        Args:
            updates: metrics of each update.
            rate: learning rate of all of them.
            sampling_seconds: that the sampler took for the rollout.
            evaluation: samples of the evaluation at this version, where there was one.
        """
        rollout = rollout_metrics(batch.samples)
        compared = batch.comparison
        step.scalars.update(rollout)
        step.log(updates, tokens=int(rollout[names.RESPONSE_TOKENS]), rate=rate)
        step.scalars.update(
            {
                names.MAX_LOGPROB_DIFFERENCE: compared.worst.difference,
                names.BEHIND_ROUTING_TIES: compared.share_left_out,
                names.ZERO_VARIANCE_GROUPS: batch.zero_variance_groups / batch.groups,
                names.SAMPLING_SECONDS: sampling_seconds,
                **(evaluation_metrics(evaluation) if evaluation else {}),
            }
        )
        passes = 2 if self._config.algorithm.chosen.uses_reference else 1
        step.work = step_work(self._model, self._config.training, batch.lengths, passes)
        monitoring = self._config.monitoring
        due = step.number % monitoring.samples_every == 0
        step.samples = [self._view(s) for s in batch.samples[: monitoring.samples if due else 0]]

    def finish(self, record: Record, evaluations: RolloutStore) -> dict[str, Any]:
        """Record the last evaluation; write summary.json and report.html; return its figures."""
        config, run_dir = self._config, self._config.run_dir
        first, last = self._base(evaluations), evaluations.samples(config.steps)
        lines = read_metrics(run_dir / METRICS_FILE)
        if not lines or lines[-1][names.STEP] < config.steps:
            record.after_the_last(config.steps, evaluation_metrics(last))
            lines = read_metrics(run_dir / METRICS_FILE)
        base, final = evaluate(first) if first else None, evaluate(last)
        summary = summarize(lines, base, final, config.seed)
        replace_json(run_dir / "summary.json", summary)
        report = Report(
            title=f"{self._recipe.rpartition('.')[2]}, seed {config.seed}",
            lines=lines,
            summary=summary,
            settings=config.model_dump(mode="json"),
            environment=_read(run_dir / "environment.json"),
            base=base,
            final=final,
            first_samples=[self._view(s) for s in first_answers(first, SHOWN_PROBLEMS)],
            last_samples=[self._view(s) for s in first_answers(last, SHOWN_PROBLEMS)],
        )
        write_report(run_dir / "report.html", report)
        for line in comparison_table(base, final):
            record.say(line)
        rewards = {name: measure.value for name, measure in final.rewards.items()}
        return {
            **rewards,
            "response_length": final.response_length,
            "problems": final.problems,
            "samples": final.samples,
        }

    def _base(self, evaluations: RolloutStore) -> list[Sample]:
        """Return the evaluation before the first update; none where it cannot be compared with."""
        made_by, last = evaluations.made_by(0), evaluations.made_by(self._config.steps)
        if made_by is None or last is None or not evaluations.is_done(0):
            why = "is not there" if made_by is None else "is not whole"
        elif damage := evaluations.damage(0):
            why = damage
        elif found := comparable(made_by, last):
            why = f"{found[0]}".replace("this run asks for", "the last one with")
        else:
            return evaluations.samples(0)
        print(f"the evaluation of version 0 {why}: the last one is compared with none", flush=True)
        return []

    def _view(self, sample: Sample) -> SampleView:
        return sample_view(sample, self._tokenizer.decode)


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content
