"""One run as a trainer rank sees it: the parts that every recipe trains with.

A recipe's ``train(run)`` owns its loop; ``Run`` hands out the parts: models, resume, steps with
their record and checkpoints, and the end of the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.model_sizes import model_sizes
from engine.config.sft_data import SftDataConfig
from engine.config.trainer import LoadingConfig, OptimizerConfig, ReferenceConfig
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.data.batches import Batch, BatchReader, Source, validation_rows
from engine.data.loader import Loader, open_loader
from engine.data.order import Order, Shuffled, in_turn
from engine.data.packing import TokenIds
from engine.data.sft_dataset import SftDataset, SftDatasets, open_sft_datasets
from engine.models.gpt import MtpMode
from engine.models.transformer_config_args import kernels_of
from engine.monitoring.phases import Phases
from engine.parallel.groups import counts_its_tokens, data_rank, data_ranks
from engine.parallel.rank_map import rank_map
from engine.platform.kernels import line as kernel_line
from engine.run.digests import folder_digest, input_digests
from engine.run.model_folder import complete
from engine.run.placement import Placement
from engine.run.record import Record
from engine.run.result import MODEL, write_result
from engine.run.run_config import RunConfig
from engine.run.step import Step
from engine.training.forward import log_probabilities
from engine.training.heads.head import Head
from engine.training.heads.token_logprobs import TokenLogProbs
from engine.training.reference import Reference
from engine.training.trained_model import TrainedModel
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load

if TYPE_CHECKING:
    from engine.run.sampling import Sampling

C = TypeVar("C", bound=RunConfig)


class Run(Generic[C]):
    """One run on one trainer rank. Every method is called by all ranks at the same point.

    Attributes:
        config: the recipe's configuration.
        placement: this process's place in the run.
        first_step: the step that this start begins with; 0 in a run that starts anew.
        phases: where the time goes.
        record: the run's console, metrics and TensorBoard.
        source: the Hugging Face folder whose model is trained.
    """

    def __init__(self, config: C, placement: Placement) -> None:
        self.config, self.placement = config, placement
        self.phases = Phases(synchronize=torch.cuda.synchronize)
        folder = config.run_dir / "checkpoints"
        self.checkpoints = Checkpoints(folder, config.checkpoint, config.seed)
        self.first_step = self.checkpoints.latest() or 0
        self.record = Record(config, self.phases, self.first_step)
        self.source = HuggingFaceFolder(config.model) if config.model.is_dir() else None
        self._inputs = input_digests(config)
        self._model: TrainedModel | None = None
        self._reference: Reference | None = None
        self._loader: Loader | None = None
        self._packing = Packing.of(config.training, config.layout, data_rank(), data_ranks())
        self._validation: dict[Path, list[WeightedRow]] = {}

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
        self.source = source or self.source
        assert self.source is not None
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
        if dist.get_rank() == 0:
            print(rank_map(config.layout, model_sizes(self.source.config)), flush=True)
            print(kernel_line(kernels_of(config.training)), flush=True)
        return model

    @property
    def layers(self) -> int:
        """Layers of the model, prediction depths included."""
        assert self.source is not None
        sizes = model_sizes(self.source.config)
        return sizes.layers + sizes.mtp

    def sampling(self, policy: TrainedModel) -> Sampling:
        """Wait for servers and sampler, and give the servers the weights of ``policy``.

        Raises:
            RunError: the servers are not ready in time, or do not take the weights.
        """
        from engine.run.sampling import Sampling  # recipes without servers do not load it

        return Sampling(self, policy)

    @property
    def is_first_rank(self) -> bool:
        """Whether this is the rank that writes what is written once."""
        return dist.get_rank() == 0

    def batches(
        self,
        loading: LoadingConfig,
        source: Source,
        samples: int,
        position: int,
        order: Order = in_turn,
    ) -> Iterator[Batch]:
        """Start to load batches ahead of their use; ends an earlier loading.

        Args:
            loading: who loads, and how far ahead.
            source: samples by index.
            samples: of one batch, on all ranks.
            position: number of the stream that the first batch begins with.
            order: which sample is number n of the stream.
        """
        reader = BatchReader(source, order, samples, self._packing)
        self._close_loader()
        device = torch.device(torch.cuda.current_device())
        self._loader = open_loader(loading, reader, position, device)
        return self._loader

    def shuffled_batches(
        self, loading: LoadingConfig, data: SftDataset, samples: int
    ) -> Iterator[Batch]:
        """Load batches of ``data`` from the first step on, every epoch in another order."""
        order = Shuffled(len(data.tokens), self.config.seed)
        return self.batches(loading, data.tokens, samples, self.first_step * samples, order)

    def sft_datasets(self, data: SftDataConfig) -> SftDatasets:
        """Tokenize conversations once, into RUN_DIR/data, and open what is there.

        Raises:
            RunError: a file, record or answer is not as it should be; says where.
        """
        assert self.source is not None
        folder = self.config.run_dir / "data"
        found = open_sft_datasets(data, self.source.path, folder, rank=dist.get_rank())
        if self.is_first_rank:
            for part in filter(None, (found.train, found.validation)):
                print(part.line(), flush=True)
        return found

    def mean_loss(self, model: TrainedModel, data: SftDataset) -> float:
        """Compute the mean loss over all response tokens of ``data``; a collective.

        Returns:
            Nats per token, on every rank.
        """
        with self.phases("validation"):
            if data.folder not in self._validation:
                device = torch.cuda.current_device()
                rows = validation_rows(data.tokens, self._packing, device)
                self._validation[data.folder] = rows
            rows = self._validation[data.folder]
            found = log_probabilities(model.chunks, rows, model.head)
            loss = 0.0
            if found is not None and counts_its_tokens():
                loss = sum(
                    float(-(logp * row.weights).sum())
                    for row, logp in zip(rows, found, strict=True)
                )
            return self.sum_over_ranks(loss)

    def log_probabilities(
        self, model: TrainedModel, samples: Sequence[tuple[TokenIds, TokenIds]]
    ) -> dict[int, Tensor]:
        """Compute the log-probability of every response token, without gradients; a collective.

        Args:
            samples: each (prompt tokens, response tokens); the same on all ranks.

        Returns:
            Sample's index -> float32 [response tokens]. Each sample is on exactly one rank.
        """
        device = torch.cuda.current_device()
        (part,) = build_minibatches(samples, [1.0] * len(samples), self._packing, device=device)
        found = log_probabilities(model.chunks, part.rows, model.head)
        if found is None or not counts_its_tokens():
            return {}
        return {
            index: tokens
            for row, logp in zip(part.rows, found, strict=True)
            for index, tokens in zip(row.members, row.packed.gather(logp), strict=True)
        }

    def sum_over_ranks(self, value: float) -> float:
        """Return the sum of all ranks' values, on every rank."""
        total = torch.tensor([value], dtype=torch.float64, device=torch.cuda.current_device())
        dist.all_reduce(total)
        return float(total)

    def reference(self, model: TrainedModel, config: ReferenceConfig) -> Reference:
        """Build the frozen copy of ``model`` that a KL term holds it near."""
        assert self.source is not None
        reference = Reference(
            self.source.config,
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
            progress = self.checkpoints.load(self.first_step, self._state)
            if reference is not None:
                reference.version = progress["reference_version"]

    @property
    def _state(self) -> TrainingState:
        assert self._model is not None, "resume() comes before steps()"
        frozen = self._reference.chunks if self._reference is not None else ()
        return TrainingState(self._model.chunks, self._model.optimizer, frozen)

    def steps(self, total: int, record_every: int = 1) -> Iterator[Step]:
        """Yield every step from the first to ``total`` - 1; record and save each when it is over.

        Args:
            record_every: steps between two lines of the record; the last step has one anyway.
        """
        self.record.start(total)
        self.phases.take()  # the start belongs to no step
        for number in range(self.first_step, total):
            step = Step(number, total)
            yield step
            self.record.step(step, record_every)
            self._checkpoint(number + 1, last=number + 1 == total)

    def _checkpoint(self, step: int, *, last: bool) -> None:
        with self.phases("checkpoint"):
            self.checkpoints.poll()
            if step % self.config.checkpoint.every == 0 or last:
                progress: dict[str, Any] = {"weight_version": step}
                if self._reference is not None:
                    progress["reference_version"] = self._reference.version
                self.checkpoints.save(step, self._state, progress)

    def finish(
        self, model: TrainedModel, steps: int, figures: Mapping[str, Any], template: str = "plain"
    ) -> None:
        """Write RUN_DIR/model and, last, RUN_DIR/result.json.

        Args:
            steps: that were made.
            figures: the last evaluation, or whatever the recipe measures itself by; on rank 0.
            template: name of the prompt template that the model was trained with; it becomes the
                folder's chat template where the model has none of its own.
        """
        self.checkpoints.finish()
        assert self.source is not None
        folder = self.config.run_dir / MODEL
        Exporter(model.chunks, self.source).export(folder)
        if dist.get_rank() == 0:
            complete(folder, template)
        dist.barrier()
        made = folder_digest(folder)
        if dist.get_rank() == 0:
            shutil.rmtree(self.config.run_dir / "weights", ignore_errors=True)  # model/ is the last
            digests = {**self._inputs, "made": made}
            write_result(self.placement.recipe, self.config, steps, digests, figures)
            self.record.say(f"model in {folder}")
        self.record.close()
        self._close_loader()
        dist.barrier()  # rank 0 hosts stores that the others use: all leave together

    def _close_loader(self) -> None:
        if self._loader is not None:
            self._loader.close()
            self._loader = None
