"""What ranks of a pool run for the tests of FP8 parameters; import it in a pool's ranks only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  (readies the platform for megatron)

import pytest
from option_cases import Row
from stand_in_fp8 import StandIn, fp8_parameters
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from engine.checkpoint.checkpoints import Checkpoints
from engine.checkpoint.training_state import TrainingState
from engine.config.layout import LayoutConfig
from engine.config.trainer import CheckpointConfig, OptimizerConfig
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs
from engine.training.reference import Reference
from engine.training.trained_model import TrainedModel
from engine.weights import tensor_stream
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from engine.weights.shards import shards
from engine.weights.tensor_stream import TensorStream

__all__ = ["rank_imports"]

TRAINING = TrainingConfig(dtype="bfloat16", tokens_per_microbatch=96)
HEAD = TokenLogProbs(1.0, TRAINING.logits_chunk_tokens)


def write_folder(layout: LayoutConfig, folder: Path) -> None:
    """A model folder with random weights beside its ``config.json``."""
    source = HuggingFaceFolder(folder)
    policy = TrainedModel(source.config, layout, OptimizerConfig(lr=0.01), TRAINING, HEAD)
    Exporter(policy.chunks, source).export(folder.parent / "weights")
    (folder.parent / "weights" / "model.safetensors").rename(folder / "model.safetensors")


def from_a_folder(layout: LayoutConfig, folder: Path) -> dict[str, Any]:
    """Right after loading: weights in bfloat16, those pushed with FP8, the reference's, masters."""
    plain = _policy(layout, folder, in_fp8=False)
    policy = _policy(layout, folder, in_fp8=True)
    reference = Reference(HuggingFaceFolder(folder).config, layout, TRAINING)
    with fp8_parameters(_chosen):
        with pytest.raises(ValueError, match="FP8 parameters have no pieces outside"):
            list(shards(policy.chunks))
        reference.refresh(policy, version=0)
        pushed = TensorStream(policy.chunks).collect()
        assert not any(isinstance(p, StandIn) for p in reference.chunks[0].parameters())
        assert any(isinstance(p, StandIn) for p in policy.chunks[0].parameters())
    return {
        "exact": TensorStream(plain.chunks).collect(),
        "pushed": pushed,
        "reference": TensorStream(reference.chunks).collect(),
        "parameters": {n: p.detach() for n, p in plain.chunks[0].named_parameters() if _chosen(n)},
        "masters": _masters(policy),
    }


def plain_copies_at_once(layout: LayoutConfig, folder: Path) -> tuple[int, int, int]:
    """Collect a stream's tensors.

    Returns:
        The most plain copies of FP8 parameters in memory together, how many were made, and how many
        such parameters there are on this rank.
    """
    alive: list[StorageWeakRef] = []
    most = 0

    def counted(parameter: Tensor) -> Tensor:
        nonlocal most
        values = parameter.detach().dequantize()
        alive.append(StorageWeakRef(values.untyped_storage()))
        most = max(most, sum(not one.expired() for one in alive))
        return values

    policy = _policy(layout, folder, in_fp8=True)
    with fp8_parameters(_chosen), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_stream, "dequantise", counted)
        TensorStream(policy.chunks).collect()
    quantised = [p for p in policy.chunks[0].parameters() if isinstance(p, StandIn)]
    return most, len(alive), len(quantised)


def restarted(layout: LayoutConfig, folder: Path) -> tuple[str, bool]:
    """What a restart of the optimizer says of FP8 parameters; whether it goes on to train."""
    policy = _policy(layout, folder, in_fp8=True)
    before = _bytes(policy)
    with fp8_parameters(_chosen), pytest.raises(RunError) as refused:
        policy.restart_optimizer(OptimizerConfig(lr=0.02))
    with fp8_parameters(_chosen):
        _update(policy)
    return str(refused.value), bool(before) and before != _bytes(policy)


def trained_and_resumed(layout: LayoutConfig, folder: Path, saves: Path) -> dict[str, Any]:
    """Weights after updates: of one policy, and of one that takes over from its checkpoint."""
    state: dict[str, Any] = {}
    with fp8_parameters(_chosen):
        first = _policy(layout, folder, in_fp8=True)
        stream = TensorStream(first.chunks)
        state["start"] = stream.collect()
        _update(first)
        state["trained"], state["masters"] = stream.collect(), _masters(first)
        state["parameters"] = {
            name: parameter.dequantize()
            for name, parameter in first.chunks[0].named_parameters()
            if isinstance(parameter, StandIn)
        }
        checkpoints = Checkpoints(saves, CheckpointConfig(every=1, keep=9), seed=1)
        checkpoints.save(1, TrainingState(first.chunks, first.optimizer), {})
        checkpoints.finish()
        config = HuggingFaceFolder(folder).config
        other = TrainedModel(config, layout, OptimizerConfig(lr=0.01), TRAINING, HEAD)
        checkpoints.load(1, TrainingState(other.chunks, other.optimizer))
        state["same bytes"] = _bytes(first) == _bytes(other)
        state["resumed masters"] = _masters(other)
        for policy in (first, other):
            _update(policy)
        state["same bytes later"] = _bytes(first) == _bytes(other)
    return state


def _policy(layout: LayoutConfig, folder: Path, *, in_fp8: bool) -> TrainedModel:
    source = HuggingFaceFolder(folder)
    chosen: Callable[[str], bool] = _chosen if in_fp8 else (lambda _: False)
    with fp8_parameters(chosen):
        policy = TrainedModel(source.config, layout, OptimizerConfig(lr=0.01), TRAINING, HEAD)
        policy.parameters_changed(load(policy.chunks, source))
    return policy


def _chosen(name: str) -> bool:
    """What Transformer Engine would keep in FP8: weights of the decoder's linear layers."""
    return "decoder.layers" in name and "linear_" in name and name.endswith(".weight")


def _masters(policy: TrainedModel) -> dict[str, Tensor]:
    """This rank's share of each FP8 parameter's masters, flat."""
    found = {}
    names = {parameter: name for name, parameter in policy.chunks[0].named_parameters()}
    for part in policy.optimizer.chained_optimizers:
        for parameters, masters in zip(
            part.model_float16_groups, part.shard_fp32_from_float16_groups, strict=True
        ):
            for parameter, master in zip(parameters, masters, strict=True):
                if isinstance(parameter, StandIn):
                    found[names[parameter]] = master.detach().clone()
    return found


def _bytes(policy: TrainedModel) -> list[tuple[list[int], float]]:
    return [
        (parameter.raw.flatten().tolist(), float(parameter.scale))
        for parameter in policy.chunks[0].parameters()
        if isinstance(parameter, StandIn)
    ]


def _update(policy: TrainedModel) -> None:
    def loss(outputs: TokenOutputs, row: Row) -> tuple:
        return -(outputs.logp * row.weights).sum(), {}

    policy.update([Row()], loss, tokens=10, learning_rate=0.01)
