"""The policy's weights as a Hugging Face folder, for servers and for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from engine.weights.gather import Gatherer
from engine.weights.hugging_face import HuggingFaceFolder, write_folder
from engine.weights.tensor_maps import maps_of_folder


class Exporter:
    """Writes a model's weights under Hugging Face names. Built and called by all ranks together.

    Args:
        chunks: the trained model's chunks on this rank.
        source: the folder it came from; config and tokenizer files are copied from there.
    """

    def __init__(self, chunks: Sequence[torch.nn.Module], source: HuggingFaceFolder) -> None:
        self._source = source
        self._maps = maps_of_folder(source)
        self._gatherer = Gatherer(chunks)

    def export(self, folder: Path) -> None:
        """Write the weights as they are now to ``folder``; returns on all ranks when it is whole.

        Raises:
            RunError: the folder cannot be written (on rank 0).
            ValueError: the model holds a tensor that no rule names, or lacks one.
        """
        tensors = self.tensors()
        if dist.get_rank() == 0:
            write_folder(folder, tensors, self._source.path)
        dist.barrier()

    def tensors(self) -> dict[str, Tensor]:
        """The whole weights as they are now, by Hugging Face name; on rank 0, elsewhere none.

        Raises:
            ValueError: the model holds a tensor that no rule names, or lacks one (on rank 0).
        """
        whole = self._gatherer.gather()
        return self._to_hugging_face(whole) if dist.get_rank() == 0 else {}

    def _to_hugging_face(self, whole: dict[tuple[str, int | None], Tensor]) -> dict[str, Tensor]:
        if set(whole) != set(self._maps):
            missing = sorted(map(str, set(self._maps) ^ set(whole)))
            raise ValueError(f"weight rules and model differ in {missing[:5]}")
        tensors: dict[str, Tensor] = {}
        for key, tensor in whole.items():
            tensors.update(self._maps[key].to_hugging_face(tensor))
        return tensors
