"""Recognise what else a folder may be that was meant as a Hugging Face folder of safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

_PICKLED = (
    "weights in pickled files, which are never read: load the folder with transformers and "
    "save it again (save_pretrained writes safetensors)"
)
_BY_NAME = (
    ("*.gguf", "GGUF weights of llama.cpp: take the folder with the model's safetensors"),
    ("model_index.json", "a pipeline of diffusers, no language model"),
    ("consolidated*", "the maker's original format: take the files in Hugging Face's"),
    ("pytorch_model*.bin", _PICKLED),
    ("*.pth", _PICKLED),
    ("*.pt", _PICKLED),
    ("*.ckpt", _PICKLED),
    ("flax_model*", "weights of Flax: load them with transformers and save them again"),
    ("tf_model*", "weights of TensorFlow: load them with transformers and save them again"),
    ("*.onnx", "a model for ONNX, without weights to train"),
    ("*.distcp", "a megatron checkpoint: convert it (python -m tools.convert megatron-to-hf)"),
)
"""Pattern of a file's name -> what such a folder holds, and the way out."""


def held_instead(folder: Path) -> str | None:
    """Return what ``folder`` holds instead of a model's safetensors; None if nothing is known."""
    return next(_held(folder), None)


def _held(folder: Path) -> Iterator[str]:
    if folder.is_file():
        yield "it is a file: name the folder that it lies in"
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            base = _base_of(folder)
            yield (
                f"{name} makes it an adapter (LoRA) for {base}: merge it into that model "
                "(merge_and_unload of PEFT) and take the merged folder"
            )
    for pattern, what in _BY_NAME:
        for file in sorted(folder.glob(pattern)):
            yield f"it holds {file.name}: {what}"
    for pattern in ("*/config.json", "snapshots/*/config.json"):
        for file in sorted(folder.glob(pattern)):
            yield f"a model is in {file.parent}: name that folder"
    for file in sorted(folder.glob("*.safetensors")):
        if not file.name.startswith("model"):
            yield (
                f"it holds {file.name}: weights are looked for in model.safetensors, or in the "
                "files that model.safetensors.index.json names"
            )


def _base_of(folder: Path) -> str:
    try:
        said = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return "another model"
    return str(said)[:200] or "another model"
