"""One rank: load a folder, score samples, do three updates, export; or stop and go on between."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.platform import accelerator

accelerator.prepare()

import torch.distributed as dist  # noqa: E402

from engine.algorithms.next_token import next_token_loss  # noqa: E402
from engine.checkpoint.checkpoints import Checkpoints  # noqa: E402
from engine.checkpoint.training_state import TrainingState  # noqa: E402
from engine.config.layout import LayoutConfig  # noqa: E402
from engine.config.trainer import CheckpointConfig, OptimizerConfig  # noqa: E402
from engine.config.training import TrainingConfig  # noqa: E402
from engine.data.batch_builder import (  # noqa: E402
    Packing,
    WeightedRow,
    build_minibatches,
)
from engine.parallel.groups import (  # noqa: E402
    data_rank,
    data_ranks,
    process_groups,
)
from engine.training.forward import log_probabilities  # noqa: E402
from engine.training.heads.token_logprobs import TokenLogProbs, TokenOutputs  # noqa: E402
from engine.training.trained_model import TrainedModel  # noqa: E402
from engine.weights.export import Exporter  # noqa: E402
from engine.weights.hugging_face import HuggingFaceFolder  # noqa: E402
from engine.weights.load import load as load_weights  # noqa: E402

LEARNING_RATE = 1e-2
UPDATES = 3


def main(given: dict) -> dict:
    layout = LayoutConfig(**given["layout"])
    folder = HuggingFaceFolder(Path(given["model"]))
    samples = json.loads(Path(given["samples"]).read_text())
    with process_groups(layout, seed=1):
        optimizer = OptimizerConfig(lr=LEARNING_RATE, eps=given["eps"])
        training = TrainingConfig(dtype="float32", tokens_per_microbatch=128)
        head = TokenLogProbs(1.0, training.logits_chunk_tokens)
        policy = TrainedModel(folder.config, layout, optimizer, training, head)
        load_weights(policy.chunks, folder)
        policy.parameters_changed()
        weights = [1.0 / sum(len(answer) for _, answer in samples)] * len(samples)
        packing = Packing.of(training, layout, data_rank(), data_ranks())
        (minibatch,) = build_minibatches(samples, weights, packing)
        answer = {"logp": _scored(policy, minibatch.rows)}

        checkpoints = Checkpoints(Path(given["checkpoints"]), CheckpointConfig(every=1), seed=1)
        first = checkpoints.latest() if given.get("resume") else 0
        state = TrainingState(policy.chunks, policy.optimizer)
        if first:
            checkpoints.load(first, state)
        for update in range(first, UPDATES):
            metrics = policy.update(minibatch.rows, _loss, minibatch.tokens, LEARNING_RATE)
            if given.get("save_after") == update + 1:
                checkpoints.save(update + 1, state, {})
        checkpoints.finish()
        answer |= {"loss": metrics["loss"], "gradient_norm": metrics["gradient_norm"]}
        answer["expert_load"] = policy.expert_load.take(folder.config["num_hidden_layers"])
        Exporter(policy.chunks, folder).export(Path(given["export"]))
        dist.barrier()
    return answer


def _scored(policy: TrainedModel, rows: list[WeightedRow]) -> dict[int, list[float]]:
    """Log-probabilities of responses by the sample's number, where this rank has them."""
    found = log_probabilities(policy.chunks, rows, policy.head)
    if found is None:
        return {}
    return {
        sample: logp.tolist()
        for row, scored in zip(rows, found, strict=True)
        for sample, logp in zip(row.members, row.packed.gather(scored), strict=True)
    }


def _loss(outputs: TokenOutputs, row: WeightedRow) -> tuple:
    return next_token_loss(outputs.logp, row.weights)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
