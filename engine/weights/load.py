"""Load a Hugging Face folder into the parameters that this rank holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.errors import RunError
from engine.models.sequence_classifier import SCORE
from engine.models.weight_rules import TensorMap
from engine.platform.quantised import quantise_into
from engine.weights.full_precision import HighPrecisionWeights, in_full_precision
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.shards import shards
from engine.weights.tensor_maps import MapKey, check_folder, maps_of_folder
from engine.weights.values import check_weights


@torch.no_grad()
def load(chunks: Sequence[torch.nn.Module], folder: HuggingFaceFolder) -> HighPrecisionWeights:
    """Fill the parameters of this rank's model chunks from ``folder``, whatever the layout.

    A sequence classification model takes its trunk from a language model's folder, too: output
    layer and prediction head stay there, and the score layer as it is.

    Returns:
        The folder's values of FP8 parameters, before they were rounded into them: FP32 master
        weights start from them (``TrainedModel.parameters_changed``), and until then they take
        memory. Empty where there are no such parameters.

    Raises:
        RunError: a shard is damaged, a parameter has no rule, a tensor is missing, no weight or of
            another shape, or the folder holds tensors that no rule uses.
    """
    maps = maps_of_folder(folder)
    folder.check_shards()
    check_folder(folder, maps.values())
    with in_full_precision(chunks) as unrounded:
        _fill(chunks, folder, maps)
    for parameter, values in unrounded.items():
        quantise_into(parameter, values)
    return unrounded


def _fill(
    chunks: Sequence[torch.nn.Module],
    folder: HuggingFaceFolder,
    maps: dict[MapKey, TensorMap],
) -> None:
    for shard in shards(chunks):
        if shard.key == SCORE and (SCORE, None) not in maps:
            continue
        if (shard.key, shard.expert) not in maps:
            raise RunError(f"model: no weight rule of the family makes {shard.key}")
        tensor_map = maps[shard.key, shard.expert]
        parts = [folder.tensor(name) for name in tensor_map.names]
        check_weights(tensor_map.names, parts, f"model: {folder.path}")
        try:
            whole = tensor_map.to_megatron(parts)
        except (ValueError, RuntimeError) as error:  # torch's: shapes that do not go together
            raise RunError(f"model: {', '.join(tensor_map.names)} {error}") from None
        if tuple(whole.shape) != shard.shape:
            raise RunError(
                f"model: {', '.join(tensor_map.names)} make a tensor of shape "
                f"{tuple(whole.shape)}; config.json asks for {shard.shape}"
            )
        shard.data.copy_(whole[shard.place].reshape(shard.data.shape))
