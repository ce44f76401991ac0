"""Loading a Hugging Face folder into the parameters that this rank holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.errors import RunError
from engine.models.family import family_of
from engine.models.full_precision import Unrounded, in_full_precision
from engine.models.hugging_face import HuggingFaceFolder
from engine.models.shards import shards
from engine.models.weight_rules import TensorMap, expand
from engine.platform.quantised import quantise_into


@torch.no_grad()
def load(chunks: Sequence[torch.nn.Module], folder: HuggingFaceFolder) -> Unrounded:
    """Fill the parameters of this rank's model chunks from ``folder``, whatever the layout.

    Returns:
        What the folder says of FP8 parameters, before it was rounded into them: masters start from
        it (``Policy.parameters_changed``), and until then it takes memory. Else empty.

    Raises:
        RunError: a parameter has no rule, a tensor is missing or has another shape, or the folder
            holds tensors that no rule uses (nothing is dropped silently).
    """
    maps = expand(family_of(folder.config).rules(folder.config))
    used = {name for tensor_map in maps.values() for name in tensor_map.names}
    unused = sorted(set(folder.files) - used)
    if unused:
        raise RunError(
            f"model: {folder.path} holds {len(unused)} tensors that its family does not name, "
            f"first {unused[0]}"
        )
    with in_full_precision(chunks) as unrounded:
        _fill(chunks, folder, maps)
    for parameter, values in unrounded.items():
        quantise_into(parameter, values)
    return unrounded


def _fill(
    chunks: Sequence[torch.nn.Module],
    folder: HuggingFaceFolder,
    maps: dict[tuple[str, int | None], TensorMap],
) -> None:
    for shard in shards(chunks):
        if (shard.key, shard.expert) not in maps:
            raise RunError(f"model: no weight rule of the family makes {shard.key}")
        tensor_map = maps[shard.key, shard.expert]
        try:
            whole = tensor_map.to_megatron([folder.tensor(name) for name in tensor_map.names])
        except ValueError as error:
            raise RunError(f"model: {', '.join(tensor_map.names)} {error}") from None
        if tuple(whole.shape) != shard.shape:
            raise RunError(
                f"model: {', '.join(tensor_map.names)} make a tensor of shape "
                f"{tuple(whole.shape)}; config.json asks for {shard.shape}"
            )
        shard.data.copy_(whole[shard.place].reshape(shard.data.shape))
