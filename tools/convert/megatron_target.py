"""Target that is a megatron checkpoint of a model alone, as :mod:`engine.checkpoint` reads it.

It holds what a training checkpoint holds of the policy's weights, under the same keys, and beside
it the Hugging Face config and tokenizer, so that the folder needs no other.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import manifest
from engine.checkpoint.manifest import Digest
from engine.errors import RunError
from engine.models.weight_rules import TensorMap
from engine.platform.files import sync
from engine.weights.buckets import groups
from engine.weights.hugging_face import copy_companions, write_text
from tools.convert import torch_dist
from tools.convert.cuts import Cuts
from tools.convert.plan import PlannedFile
from tools.convert.precision import Precision
from tools.convert.sources import Source
from tools.convert.targets import RECORD, Tensors
from tools.convert.torch_dist import Piece, PieceWriter

PIECE_OVERHEAD = 1600
"""Bytes that ``torch.save`` adds to a piece, and a little more."""
FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
"""``metadata.json``, as megatron's ``CheckpointingConfig`` writes it."""


class MegatronTarget:
    """See :class:`tools.convert.targets.Target`."""

    def __init__(self, source: Source, cuts: Cuts, file_bytes: int) -> None:
        """Args:
        file_bytes: a file holds whole tensors and no more than this, unless one is larger.

        Raises:
            RunError: the model cannot be cut so.
        """
        self._source, self._cuts = source, cuts
        self._layers = int(source.companions.config["num_hidden_layers"])
        self._experts: dict[str, int] = {}
        for key, expert in source.maps:
            if expert is not None:
                self._experts[key] = max(self._experts.get(key, 0), expert + 1)
        self.options = {"format": "megatron", **asdict(cuts)}
        try:
            self.planned = list(self._plan(file_bytes))
        except ValueError as error:
            raise RunError(f"--pp: {error}") from None

    def prepare(self, tensor_map: TensorMap, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """See :class:`Target`."""
        return dict(zip(tensor_map.names, parts, strict=True))

    def write(self, file: Path, planned: PlannedFile, tensors: Iterable[Tensors]) -> dict[str, Any]:
        """See :class:`Target`."""
        pieces: list[Piece] = []
        with PieceWriter(file) as writer:
            for tensor_map, parts in tensors:
                whole = self._whole(tensor_map, parts)
                expert = tensor_map.expert
                place = None if expert is None else (expert, self._experts[tensor_map.key])
                cuts = self._cuts.pieces(tensor_map.key, expert, whole.shape)
                pieces += writer.append(tensor_map.key, place, whole, cuts)
            writer.finish()
            digest = asdict(Digest(writer.bytes, writer.blake3))
        return {"digest": digest, "pieces": [piece.as_json() for piece in pieces]}

    def read_back(
        self, file: Path, planned: PlannedFile, written: dict[str, Any]
    ) -> Iterator[Tensors]:
        """See :class:`Target`."""
        held: dict[str, list[Piece]] = {}
        for found in written["pieces"]:
            piece = Piece.from_json(found)
            held.setdefault(piece.key, []).append(piece)
        for tensor_map in planned.maps:
            pieces = held.get(tensor_map.key, [])
            if not pieces:
                raise ValueError(f"{file.name} lacks {tensor_map.key}")
            whole = torch_dist.assemble(file.parent, pieces, tensor_map.expert)
            yield tensor_map, tensor_map.to_hugging_face(whole)

    def complete(self, folder: Path, written: Mapping[str, dict[str, Any]]) -> None:
        """See :class:`Target`."""
        pieces = [Piece.from_json(p) for file in written.values() for p in file["pieces"]]
        torch_dist.write_index(folder, pieces)
        common = io.BytesIO()
        torch.save({}, common)
        (folder / "common.pt").write_bytes(common.getvalue())
        sync(folder / "common.pt")
        write_text(folder / "metadata.json", json.dumps(FORMAT))
        sizes = asdict(self._cuts)
        layout = {"processes": self._cuts.tp * self._cuts.pp, **sizes, "cp": 1, "etp": 1}
        record = {"step": 0, "layout": layout, "updates": 0, "progress": {}}
        write_text(folder / "run.json", json.dumps(record, indent=2) + "\n")
        source = self._source.companions
        small = copy_companions(source, folder, Precision(None).config_of(self._source))
        names = (torch_dist.INDEX, "common.pt", "metadata.json", "run.json", RECORD)
        small += [folder / name for name in names]
        digests = {name: Digest(**file["digest"]) for name, file in written.items()}
        manifest.write(folder, {**digests, **{file.name: manifest.digest(file) for file in small}})

    def _whole(self, tensor_map: TensorMap, parts: Mapping[str, Tensor]) -> Tensor:
        try:
            return tensor_map.to_megatron([parts[name] for name in tensor_map.names])
        except (ValueError, RuntimeError) as error:  # torch's: shapes that do not go together
            names = ", ".join(tensor_map.names)
            raise RunError(f"model: {names} cannot make {tensor_map.key}: {error}") from None

    def _plan(self, file_bytes: int) -> Iterator[PlannedFile]:
        cuts, experts = self._cuts, self._experts
        if experts and cuts.ep > min(experts.values()):
            raise RunError(f"--ep: expected at most the model's {min(experts.values())} experts")
        if not experts and cuts.ep > 1:
            raise RunError("--ep: expected 1 for a model without experts")
        shares: dict[str, list[tuple[TensorMap, int]]] = {}
        for (key, expert), tensor_map in self._source.maps.items():
            share = f"pp{cuts.stage(key, self._layers)}"
            if expert is not None:
                share += f"_ep{cuts.expert_rank(expert, experts[key])}"
            size = sum(part.bytes for part in self._source.describe(tensor_map))
            overhead = PIECE_OVERHEAD * (2 * cuts.tp)
            shares.setdefault(share, []).append((tensor_map, size + overhead))
        for share, sized in sorted(shares.items()):
            for number, (maps, size) in enumerate(groups(sized, file_bytes)):
                yield PlannedFile(f"__{share}_{number}.distcp", maps, size)
