"""A run on one trainer rank: the parts that every recipe trains with.

A recipe's ``train(run)`` owns its loop; ``Run`` hands out the parts: models, resume, steps with
their record and checkpoints, and the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.distributed as dist

from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.model_sizes import model_sizes
from engine.config.trainer import OptimizerConfig, ReferenceConfig
from engine.errors import RunError
from engine.models.gpt import MtpMode
from engine.models.transformer_config_args import kernels_of
from engine.monitoring import metric_names as names
from engine.monitoring.phases import Phases
from engine.parallel.rank_map import rank_map
from engine.platform import accelerator
from engine.platform.closing import Closing
from engine.platform.kernels import line as kernel_line
from engine.run.data_position import DataPosition
from engine.run.digests import digest_of, input_digests
from engine.run.model_folder import complete
from engine.run.placement import Placement
from engine.run.record import Record
from engine.run.restart import PLACE, start_of
from engine.run.result import MODEL, forget_result, too_few_steps, write_result
from engine.run.run_config import RunConfig
from engine.run.step import Step
from engine.run.training_data import TrainingData, sum_over_ranks
from engine.training.divergence import Diverged
from engine.training.heads.head import Head
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.reference import Reference
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from engine.weights.versions import remove_versions

if TYPE_CHECKING:
    from engine.rollout.lineage import Start
    from engine.run.sampling import Sampling

C = TypeVar("C", bound=RunConfig)

LEARNED = "learned"
"""Key of a checkpoint's progress: samples that were learned before it, by their source's name."""


class Run(Closing, Generic[C]):
    """One run on one trainer rank. Every method is called by all ranks at the same point.

    Attributes:
        config: the recipe's configuration.
        placement: this process's place in the run.
        first_step: the step that this start begins with; 0 in a run that starts anew.
        phases: where the time goes.
        record: the run's console, metrics and TensorBoard.
        data: batches to learn, sets to measure on.
    """

    def __init__(self, config: C, placement: Placement) -> None:
        self.config, self.placement = config, placement
        self.phases = Phases(synchronize=torch.cuda.synchronize)
        folder = config.run_dir / "checkpoints"
        self.checkpoints = Checkpoints(folder, config.checkpoint, config.seed)
        self.first_step = self.checkpoints.latest() or 0
        self.record = Record(config, self.phases, self.first_step)
        self.data = TrainingData(config, self.first_step)
        self._source = HuggingFaceFolder(config.model) if config.model.is_dir() else None
        self._inputs = input_digests(config)
        self._model: TrainedModel | None = None
        self._reference: Reference | None = None
        self._progress: dict[str, Any] | None = None  # of the checkpoint that was loaded
        self._sampling: Sampling | None = None

    @property
    def source(self) -> HuggingFaceFolder:
        """The Hugging Face folder of the model that is trained."""
        assert self._source is not None, "a model without weights needs a source"
        return self._source

    def trained_model(
        self,
        optimizer: OptimizerConfig,
        head: Head | None = None,
        *,
        temperature: float = 1.0,
        mtp: MtpMode = "joint",
        source: HuggingFaceFolder | None = None,
    ) -> TrainedModel:
        """Build the model that is trained, with the weights of ``config.model``.

        Args:
            head: what it ends in; default: log-probabilities of tokens at ``temperature``.
            temperature: > 0, of the distribution that log-probabilities speak of.
            mtp: what the multi-token prediction loss reaches, see ``GPTBackbone``.
            source: instead of ``config.model``; a folder without weights: they are drawn.

        Raises:
            RunError: the model cannot be built or loaded; says why.
        """
        config = self.config
        self._source = source or self._source
        chunk_tokens = config.training.logits_chunk_tokens
        model = TrainedModel(
            self.source.config,
            config.layout,
            optimizer,
            config.training,
            head=head or TokenLogProbs(temperature, chunk_tokens),
            mtp=mtp,
        )
        if self.source.names is not None:
            model.parameters_changed(load(model.chunks, self.source))
        if self.is_first_rank:
            print(rank_map(config.layout, model_sizes(self.source.config)), flush=True)
            print(kernel_line(kernels_of(config.training)), flush=True)
        return model

    def sampling(self, policy: TrainedModel) -> Sampling:
        """Wait for servers and sampler, and give the servers the weights of ``policy``.

        Raises:
            RunError: the servers are not ready in time, or do not take the weights.
        """
        from engine.run.sampling import Sampling  # recipes without servers do not load it

        self._sampling = Sampling(
            self.config,
            self.placement,
            policy,
            source=self.source,
            packing=self.data.packing,
            phases=self.phases,
            start=self._start(),
        )
        return self._sampling

    def _start(self) -> Start:
        """Return where this start of a run that samples begins."""
        config = self.config
        kernels = {"device": accelerator.device_name(), **kernels_of(config.training)}
        say = print if self.is_first_rank else _say_nothing
        return start_of(config, self.first_step, self._progress, self._inputs, kernels, say)

    @property
    def is_first_rank(self) -> bool:
        """Whether this is the rank that writes what is written once."""
        return dist.get_rank() == 0

    def sum_over_ranks(self, value: float) -> float:
        """Return the sum of all ranks' values, on every rank."""
        return sum_over_ranks(value)

    def reference(self, model: TrainedModel, config: ReferenceConfig) -> Reference:
        """Build the frozen copy of ``model`` that a KL term holds it near."""
        reference = Reference(
            model.config,
            self.config.layout,
            self.config.training,
            offload=config.offload,
            refresh_steps=config.refresh_steps,
        )
        reference.refresh(model, version=0)
        return reference

    def resume(self, model: TrainedModel, reference: Reference | None = None) -> None:
        """Load the newest checkpoint into these, where there is one; checkpoints hold them now."""
        self._model, self._reference = model, reference
        if self.first_step:
            self._progress = self.checkpoints.load(self.first_step, self._state)
            if guard := self._progress.get("update_guard"):  # earlier versions had none
                model.guard.restore(guard)
            if reference is not None:
                reference.version = self._progress["reference_version"]
            self.data.position = DataPosition(self.first_step, self._progress.get(LEARNED))

    @property
    def _state(self) -> TrainingState:
        assert self._model is not None
        frozen = self._reference.chunks if self._reference is not None else ()
        return TrainingState(self._model.chunks, self._model.optimizer, frozen)

    def steps(self, total: int, record_every: int = 1) -> Iterator[Step]:
        """Yield every step from the first to ``total`` - 1; record and save each when it is over.

        When the last step is over, its checkpoint is whole.

        Args:
            record_every: steps between two lines of the record; the last step has one anyway.

        Raises:
            Diverged: the weights that the last update has made cannot be trained on.
            RunError: the run has made more steps already.
            ValueError: :meth:`resume` was not called before.
        """
        if self._model is None:
            raise ValueError("resume() comes before steps(): checkpoints have to hold a model")
        if self.first_step > total:
            says = too_few_steps(self.config.run_dir, self.first_step, total)
            raise RunError(f"steps: {says}")
        self.record.start(total)
        self.phases.take()  # the start belongs to no step
        for number in range(self.first_step, total):
            if number == self.first_step and self.is_first_rank:
                forget_result(self.config.run_dir)  # of a shorter run, which goes on now
            step = Step(number, total)
            self._model.guard.begin_step(number)
            yield step
            self._note_skipped(self._model, step)
            self.record.step(step, record_every)
            self._checkpoint(self._model, number + 1, last=number + 1 == total)
        self._model.guard.begin_step(total)
        self._model.confirm()  # no update will follow that would find the last checkpoint bad
        self.checkpoints.finish()
        self.checkpoints.trained_on()

    def _note_skipped(self, model: TrainedModel, step: Step) -> None:
        """Say which minibatches were skipped in ``step``, and record how many in the whole run."""
        if model.guard.skip_spikes is None:
            return
        skipped = model.guard.take_notes()
        for note in skipped:
            self.record.say(note)
        step.scalars[names.SKIPPED_MINIBATCHES] = model.guard.skipped
        step.has_line |= bool(skipped)

    def _checkpoint(self, model: TrainedModel, step: int, *, last: bool) -> None:
        with self.phases("checkpoint"):
            if model.guard.tried:
                self.checkpoints.trained_on()
            self.checkpoints.poll()
            if step % self.config.checkpoint.every == 0 or last:
                progress: dict[str, Any] = {
                    "weight_version": step,
                    "update_guard": model.guard.state(),
                    LEARNED: self.data.position.before(step),
                }
                if self._reference is not None:
                    progress["reference_version"] = self._reference.version
                if self._sampling is not None:
                    progress[PLACE] = self._sampling.place.as_json()
                self.checkpoints.save(step, self._state, progress)

    def finish(
        self,
        model: TrainedModel,
        steps: int,
        figures: Mapping[str, Any],
        template: str | None = None,
    ) -> None:
        """Write RUN_DIR/model and, last, RUN_DIR/result.json.

        Args:
            steps: that were made.
            figures: the last evaluation, or whatever the recipe measures itself by; on rank 0.
            template: name of the prompt template that the model was trained with; it becomes the
                folder's chat template where the model has none of its own.
        """
        folder = self.config.run_dir / MODEL
        Exporter(model.chunks, self.source).export(folder)
        if self.is_first_rank:
            complete(folder, template)
        dist.barrier()
        made = digest_of(folder)
        if self.is_first_rank:
            # The last push has the weights that model/ has.
            remove_versions(self.config.run_dir / "weights")
            digests = {**self._inputs, "made": made}
            write_result(self.placement.recipe, self.config, steps, digests, figures)
            self.record.say(f"model in {folder}")
        dist.barrier()  # rank 0 hosts stores that the others use: all leave together

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; of a run that has diverged keep only checkpoints to go on from, and say which."""
        try:
            if isinstance(error, Diverged):
                raise RunError(f"{error}; {self._way_on(error)}") from None
        finally:
            super().__exit__(kind, error, traceback)

    def _way_on(self, error: Diverged) -> str:
        if error.start_is_good:
            self.checkpoints.trained_on()
        self.checkpoints.drop_untried()
        where = self.config.run_dir
        if (newest := self.checkpoints.folders.latest()) is None:
            return f"{where} has no checkpoint yet, and the next start begins anew"
        return (
            f"the newest checkpoint in {where} is of step {newest}; started again with the "
            f"setting changed, the run goes on from there"
        )

    def close(self) -> None:
        """Stop loading ahead, and close the record's files."""
        self.data.close()
        self.record.close()


def _say_nothing(text: str) -> None:
    """Leave it to rank 0."""
