"""Write a run's record: console, metrics.jsonl, TensorBoard, environment.json."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist

from engine.models.transformer_config_args import kernels_of
from engine.monitoring import metric_names as names
from engine.monitoring.console import Console
from engine.monitoring.environment import describe_environment
from engine.monitoring.mfu import Devices, gpu_metrics
from engine.monitoring.phases import Phases
from engine.monitoring.recorder import Recorder
from engine.platform import accelerator
from engine.platform.files import replace_json
from engine.run.run_config import RunConfig
from engine.run.step import Step


class Record:
    """The record of a run. Rank 0 writes it; on the others nothing is written.

    Args:
        config: the run's configuration.
        phases: where its time goes.
        first_step: what was recorded from there on is about to be done again.
    """

    def __init__(self, config: RunConfig, phases: Phases, first_step: int) -> None:
        self._config, self._phases, self._first_step = config, phases, first_step
        self._recorder: Recorder | None = None
        self._console: Console | None = None
        self._tokens = self._steps = 0  # since the last line, without replayed steps
        self._seconds: dict[str, float] = {}  # likewise, by phase
        self._devices = Devices(
            accelerator.device_name(), config.layout.processes, config.training.products
        )

    def start(self, total: int) -> None:
        """Open the files of a run of ``total`` steps, and write environment.json."""
        if dist.get_rank() != 0:
            return
        config = self._config
        replace_json(
            config.run_dir / "environment.json",
            describe_environment(
                device=self._devices.name,
                kernels=kernels_of(config.training),
                layout=config.layout.model_dump(),
            ),
        )
        self._recorder = Recorder(config.run_dir, self._first_step)
        self._console = Console(total, first_step=self._first_step)
        if self._first_step:
            self.say(f"going on from the checkpoint of step {self._first_step}")

    def step(self, step: Step, every: int) -> None:
        """Write a line for every ``every``-th step, for the last, and where ``has_line`` is set."""
        self._count(step)
        done = step.number + 1
        due = done % every == 0 or done == step.total or step.has_line
        if self._recorder is None or not due:
            return
        replayed = {names.REPLAYED: 1.0} if step.replayed else {}
        scalars = {**step.scalars, **replayed, **self._times(step)}
        loads = {f"layer-{layer}": load for layer, load in step.expert_load.items()}
        self._recorder.record(step.number, scalars, expert_load=loads, samples=step.samples)
        assert self._console is not None
        self._console.step(step.number, scalars)

    def _count(self, step: Step) -> None:
        """Add the step to what the next line says of time; a replayed one tells nothing of it."""
        spent = self._phases.take()
        if step.replayed:
            return
        self._tokens += step.tokens
        self._steps += 1
        for phase, seconds in spent.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def _times(self, step: Step) -> Mapping[str, float]:
        """Return where the time went since the last line, and how fast the steps were."""
        phases, self._seconds = self._seconds, {}
        seconds = sum(phases.values())
        tokens, self._tokens = self._tokens, 0
        steps, self._steps = self._steps, 0
        if not steps:
            return {}
        used = {}
        if step.work is not None and "update" in phases:
            used = gpu_metrics(step.work, phases["update"], seconds, self._devices)
        return {
            **{names.SECONDS_PREFIX + phase: value for phase, value in phases.items()},
            names.STEP_SECONDS: seconds / steps,
            names.TOKENS_PER_SECOND: tokens / seconds,
            **used,
        }

    def after_the_last(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a line that belongs to the weights after the last step, an evaluation of them."""
        if self._recorder is not None:
            self._recorder.record(step, scalars)

    def say(self, text: str) -> None:
        """Print a line of its own on the console."""
        if self._console is not None:
            self._console.say(text)

    def close(self) -> None:
        """Close console and files."""
        for part in (self._console, self._recorder):
            if part is not None:
                part.close()
