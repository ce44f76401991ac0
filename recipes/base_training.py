"""Pre-training of the base as a trainer rank lives it; ``recipes/base.py`` starts it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor

from engine.algorithms.aggregation import token_mean_weights
from engine.algorithms.learning_rate import learning_rate
from engine.algorithms.next_token import next_token_loss
from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.model_sizes import model_sizes
from engine.config.training_layout import row_multiple
from engine.data.batches import Batch, BatchReader
from engine.data.loader import open_loader
from engine.data.order import in_turn
from engine.data.packing import PackedRow, pack
from engine.errors import RunError
from engine.models.transformer_config_args import kernels_of
from engine.monitoring import metric_names as names
from engine.monitoring.console import NEXT_TOKEN, Console
from engine.monitoring.recorder import Recorder
from engine.parallel.groups import (
    counts_its_tokens,
    data_rank,
    data_ranks,
    process_groups,
)
from engine.parallel.rank_map import rank_map
from engine.platform.files import replace_text
from engine.platform.kernels import line as kernel_line
from engine.training.forward import log_probabilities
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.shards import unwrap
from recipes.base_config import BaseConfig, StageConfig
from recipes.chain_task.corpus import Corpus
from recipes.chain_task.gate import forced_trace
from recipes.chain_task.problems import different_problems
from recipes.chain_task.prompt_sets import write_prompt_sets
from recipes.chain_task.vocabulary import WORDS, write_tokenizer

LINES_EVERY = 25
"""Updates between two lines of the console and of metrics.jsonl."""


@dataclass(frozen=True)
class WeightedRow:
    """One microbatch: packed documents and the weight of each token's loss [tokens]."""

    packed: PackedRow
    weights: Tensor


def train(config: BaseConfig) -> None:
    """Next-token training, stage after stage."""
    with process_groups(config.layout, config.seed):
        run = BaseRun(config)
        with closing(run.batches()) as batches:
            for step, batch in zip(range(run.first_step, config.steps), batches, strict=True):
                run.begin_stage_if_due(step)
                run.update(step, batch)
                run.checkpoint(step + 1)
        run.finish()


class BaseRun:
    """One trainer rank's parts of the run."""

    def __init__(self, config: BaseConfig) -> None:
        self.config = config
        self.source = _model_source(config)
        folder = config.run_dir / "checkpoints"
        self.checkpoints = Checkpoints(folder, config.checkpoint, config.seed)
        self.first_step = self.checkpoints.latest() or 0
        self.stage, _ = config.at(max(0, self.first_step - 1))
        self.policy = self._new_policy()
        if dist.get_rank() == 0:
            print(rank_map(config.layout, model_sizes(self.source.config)), flush=True)
            print(kernel_line(kernels_of(config.training)), flush=True)
        if self.first_step:
            self.checkpoints.load(self.first_step, self._state)
        self.record = BaseRecord(config, self.first_step) if dist.get_rank() == 0 else None

    @property
    def _state(self) -> TrainingState:
        return TrainingState(self.policy.chunks, self.policy.optimizer)

    def _new_policy(self) -> TrainedModel:
        config = self.config
        return TrainedModel(
            self.source.config, config.layout, self.stage.optimizer, config.training
        )

    def batches(self) -> Generator[Batch, None, None]:
        """Load the batches from the first step to the last; a stage's first document is its own."""
        step = self.first_step
        while step < self.config.steps:
            stage, update = self.config.at(step)
            position = update * stage.documents_per_step
            device = torch.device(torch.cuda.current_device())
            with open_loader(self.config.data, self._reader(stage), position, device) as loader:
                yield from islice(loader, stage.steps - update)
            step += stage.steps - update

    def _reader(self, stage: StageConfig) -> BatchReader:
        config, layout = self.config, self.config.layout
        return BatchReader(
            Corpus(config.corpus, stage.corpus, seed=config.seed),
            in_turn,
            samples=stage.documents_per_step,
            rank=data_rank(),
            ranks=data_ranks(),
            tokens_per_microbatch=config.training.tokens_per_microbatch,
            row_multiple=row_multiple(config.training, layout),
            sample_multiple=layout.sample_multiple,
            row_count_multiple=layout.microbatch_multiple,
        )

    def begin_stage_if_due(self, step: int) -> None:
        """At the first update of a later stage: the same weights under a fresh optimizer."""
        stage, _ = self.config.at(step)
        if stage is not self.stage:
            weights = [unwrap(chunk).state_dict() for chunk in self.policy.chunks]
            self.stage = stage
            self.policy.close()
            self.policy = self._new_policy()
            for chunk, kept in zip(self.policy.chunks, weights, strict=True):
                unwrap(chunk).load_state_dict(kept)
            self.policy.parameters_changed()

    def update(self, step: int, batch: Batch) -> None:
        """Learn the documents of ``step``; the losses are of answers, not of problems."""
        stage, update = self.config.at(step)
        optimizer = stage.optimizer
        rate = learning_rate(
            update,
            peak=optimizer.lr,
            schedule=optimizer.schedule,
            warmup=optimizer.warmup_steps,
            total=stage.steps,
            minimum=optimizer.min_lr,
        )
        rows = [_weighted(row, batch.response_tokens) for row in batch.rows]
        metrics = self.policy.update(rows, _loss, batch.tokens, rate)
        if self.record is not None:
            self.record.step(step, metrics, rate, batch.tokens)

    def checkpoint(self, step: int) -> None:
        """Save, where it is due, what a restart needs to begin with ``step``."""
        self.checkpoints.poll()
        if step % self.config.checkpoint.every == 0:
            self.checkpoints.save(step, self._state, {"weight_version": step})

    def finish(self) -> None:
        """Hold the gate, then write the model, the prompt sets and, last, the result.

        Raises:
            RunError: the model cannot do single steps.
        """
        self.checkpoints.finish()
        run_dir, gate = self.config.run_dir, self.config.gate
        probability = self._gate()
        if probability < gate.min_probability:
            raise RunError(
                f"gate.min_probability: the base gets through a full trace with probability "
                f"{probability:.3f}, {gate.min_probability} is asked; give its first stage more "
                f"steps, or take another seed"
            )
        Exporter(self.policy.chunks, self.source).export(run_dir / "model")
        if self.record is not None:
            prompts = self.config.prompts
            write_prompt_sets(
                run_dir / "prompts",
                self.config.corpus.problems,
                train=prompts.train,
                held_out=prompts.held_out,
                seed=self.config.seed,
            )
            self.record.finish(probability)

    def _gate(self) -> float:
        """Mean probability of getting through the full trace of a held-out problem."""
        count = self.config.gate.problems
        problems = different_problems(
            self.config.corpus.problems, held_out=True, count=count, seed=self.config.seed
        )
        traces = [forced_trace(problem) for problem in problems]
        mine = traces[data_rank() :: data_ranks()]
        layout = self.config.layout
        row = pack(
            [(trace.prompt_tokens, trace.tokens) for trace in mine],
            row_multiple=row_multiple(self.config.training, layout),
            sample_multiple=layout.sample_multiple,
        ).to(torch.cuda.current_device())
        rows = [_weighted(row, 1)] * layout.microbatch_multiple
        total = torch.zeros(1, device=torch.cuda.current_device())
        found = log_probabilities(self.policy.chunks, rows, self.policy.scorer)
        if found is not None and counts_its_tokens():
            for trace, logp in zip(mine, row.gather(found[0]), strict=True):
                determined = torch.tensor(trace.determined, device=logp.device)
                total += logp[determined].sum().exp()
        dist.all_reduce(total)
        return float(total) / count


def _weighted(row: PackedRow, answer_tokens: int) -> WeightedRow:
    weights = token_mean_weights(row.response_lengths, answer_tokens)
    return WeightedRow(row, row.spread(weights))


def _loss(logp: Tensor, entropy: Tensor, row: WeightedRow) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token_loss(logp, row.weights)


def _model_source(config: BaseConfig) -> HuggingFaceFolder:
    """The folder whose config and tokenizer the base is exported with; rank 0 writes it.

    Raises:
        RunError: the architecture has another vocabulary than the task.
    """
    folder = config.run_dir / "architecture"
    if dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(config.architecture, folder / "config.json")
        write_tokenizer(folder)
    dist.barrier()
    source = HuggingFaceFolder(folder)
    if source.config["vocab_size"] != len(WORDS):
        raise RunError(
            f"architecture: {config.architecture} has vocab_size {source.config['vocab_size']}; "
            f"the chain task has {len(WORDS)} words"
        )
    return source


class BaseRecord:
    """What rank 0 tells of the run: console, metrics, and the result at the end."""

    def __init__(self, config: BaseConfig, first_step: int) -> None:
        self.config = config
        self.console = Console(config.steps, NEXT_TOKEN, first_step=first_step)
        self.recorder = Recorder(config.run_dir, first_step)
        self.since, self.tokens = time.monotonic(), 0

    def step(self, step: int, metrics: dict[str, float], rate: float, tokens: int) -> None:
        """Record the last update of every :data:`LINES_EVERY`, and the last of all."""
        self.tokens += tokens
        if (step + 1) % LINES_EVERY and step + 1 != self.config.steps:
            return
        seconds = time.monotonic() - self.since
        scalars = {
            **{names.TRAINING_PREFIX + name: value for name, value in metrics.items()},
            names.LEARNING_RATE: rate,
            names.TOKENS_PER_SECOND: self.tokens / seconds,
        }
        self.recorder.record(step, scalars)
        self.console.step(step, scalars)
        self.since, self.tokens = time.monotonic(), 0

    def finish(self, gate: float) -> None:
        """Write the result; its presence says that the base is made."""
        result = {"gate_probability": gate, "config": self.config.model_dump(mode="json")}
        replace_text(self.config.result_file, json.dumps(result, indent=2))
        self.console.say(f"base model in {self.config.run_dir / 'model'}, gate {gate:.3f}")
        self.console.close()
        self.recorder.close()
