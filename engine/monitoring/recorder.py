"""Write each step's metrics to metrics.jsonl and TensorBoard event files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import custom_scalars, histogram_raw, text

from engine.monitoring import metric_names as names
from engine.monitoring.event_file import EventFile
from engine.monitoring.metrics_file import METRICS_FILE, MetricsFile
from engine.monitoring.sample_view import SampleView
from engine.platform.closing import Closing

TENSORBOARD_FOLDER = "tensorboard"


def overview(rewards: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the charts of TensorBoard's "custom scalars" tab: curves read against each other.

    Each of the ``rewards`` has one of its own.
    """
    of_rewards = {name: [names.evaluation(name), names.reward(name)] for name in rewards}
    charts = {
        **{name: [f"^{re.escape(tag)}$" for tag in tags] for name, tags in of_rewards.items()},
        "response length": [names.EVALUATION_RESPONSE_LENGTH, names.RESPONSE_LENGTH],
        "reward by kind": [f"{names.REWARD_PREFIX}.*"],
        "seconds by phase": [f"{names.SECONDS_PREFIX}.*"],
        "model FLOPs utilisation": [names.MFU_UPDATE, names.MFU_STEP],
        "expert imbalance": [f"{names.EXPERT_IMBALANCE_PREFIX}.*"],
    }
    return {"overview": {title: ["Multiline", tags] for title, tags in charts.items()}}


class Recorder(Closing):
    """Writes the line and the TensorBoard values of each step."""

    def __init__(self, run_dir: Path, first_step: int) -> None:
        """Open ``run_dir`` to record from ``first_step`` on.

        What an earlier process recorded from ``first_step`` on is dropped from metrics.jsonl and
        hidden in TensorBoard: those steps are about to be done again.

        Raises:
            RunError: metrics.jsonl is damaged in its middle, or the folder cannot be written.
        """
        self._lines = MetricsFile(run_dir / METRICS_FILE, first_step)
        self._events = EventFile(run_dir / TENSORBOARD_FOLDER, first_step)
        self._rewards: list[str] | None = None  # that TensorBoard's overview shows

    def record(
        self,
        step: int,
        scalars: Mapping[str, float],
        *,
        expert_load: Mapping[str, Sequence[float]] | None = None,
        samples: Sequence[SampleView] = (),
    ) -> None:
        """Record one step; on return it is on disk.

        Args:
            step: larger than every step before.
            scalars: by name (``metric_names``). What is not finite becomes null in metrics.jsonl;
                TensorBoard shows it as it is.
            expert_load: by layer, the tokens (or the share of them) that went to each expert.
                TensorBoard shows it as a histogram over expert numbers; the imbalance of each layer
                joins the scalars.
            samples: for TensorBoard's text tab.
        Raises:
            RunError: the disk is full.
        """
        loads = expert_load or {}
        imbalances = {
            names.EXPERT_IMBALANCE_PREFIX + layer: imbalance(load) for layer, load in loads.items()
        }
        numbers = {**scalars, **imbalances}
        shown = [text(f"samples/{i}", sample.markdown()) for i, sample in enumerate(samples)]
        drawn = [_histogram(f"experts/load/{layer}", load) for layer, load in loads.items()]
        self._lines.append(step, numbers)
        self._events.add([*self._overview(numbers), _scalars(numbers), *drawn, *shown], step)

    def _overview(self, numbers: Mapping[str, float]) -> list[Summary]:
        """Return the overview, if it is the first one or a reward has come that it lacks."""
        known = self._rewards or []
        found = [*known, *(name for name in names.reward_names([numbers]) if name not in known)]
        if found == self._rewards:
            return []
        self._rewards = found
        return [custom_scalars(overview(found))]

    def close(self) -> None:
        """Close both files; nothing can be recorded any more."""
        self._events.close()
        self._lines.close()


def imbalance(load: Sequence[float]) -> float:
    """Return the largest load divided by the mean load: 1 is balanced, len(load) is collapsed."""
    total = sum(load)
    return max(load) * len(load) / total if total else 1.0


def _scalars(numbers: Mapping[str, float]) -> Summary:
    return Summary(
        value=[Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
    )


def _histogram(tag: str, load: Sequence[float]) -> Summary:
    """Draw experts along the axis: bucket e, from e - 0.5 to e + 0.5, holds expert e's load."""
    # TensorBoard cuts off empty buckets at the ends and would stretch the next one over them.
    counts = [max(float(value), 1e-9) for value in load]
    return histogram_raw(
        tag,
        min=-0.5,
        max=len(counts) - 0.5,
        num=sum(counts),
        sum=sum(expert * count for expert, count in enumerate(counts)),
        sum_squares=sum(expert**2 * count for expert, count in enumerate(counts)),
        bucket_limits=[expert + 0.5 for expert in range(len(counts))],
        bucket_counts=counts,
    )
