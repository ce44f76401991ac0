"""Recognise what else a folder may be that was meant as a Hugging Face folder of safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

ADAPTER = "adapter_config.json"
"""The file by which PEFT, and with it transformers, knows an adapter."""

_PICKLED = (
    "weights in pickled files, which are never read: load the folder with transformers and "
    "save it again (save_pretrained writes safetensors)"
)
_SHARDED = "a sharded checkpoint of training, no model: "
_BY_NAME = (
    ("*.gguf", "GGUF weights of llama.cpp: take the folder with the model's safetensors"),
    ("*/*.gguf", "GGUF weights of llama.cpp: take the folder with the model's safetensors"),
    ("model_index.json", "a pipeline of diffusers, no language model"),
    ("consolidated*", "the maker's original format: take the files in Hugging Face's"),
    (
        "zero_to_fp32.py",
        f"{_SHARDED}DeepSpeed's; run this file, then load what it writes with transformers and "
        "save it again",
    ),
    ("*/*.distcp", f"{_SHARDED}FSDP's; write the model with accelerate merge-weights"),
    (
        "latest_checkpointed_iteration.txt",
        f"{_SHARDED}Megatron-LM's; write the model in Hugging Face's format",
    ),
    ("pytorch_model*.bin", _PICKLED),
    ("pytorch_model.bin.index.json", _PICKLED),
    ("*.pth", _PICKLED),
    ("*.pt", _PICKLED),
    ("*.ckpt", _PICKLED),
    ("flax_model*", "weights of Flax: load them with transformers and save them again"),
    ("tf_model*", "weights of TensorFlow: load them with transformers and save them again"),
    ("*.onnx", "a model for ONNX, without weights to train"),
    ("*/*.onnx", "a model for ONNX, without weights to train"),
    ("*.npz", "weights of MLX: take the folder that they were converted from"),
    ("*.distcp", "a megatron checkpoint: convert it (python -m tools.convert megatron-to-hf)"),
)
"""Pattern of a file's name -> what such a folder holds, and the way out."""
_INSIDE = ("*/config.json", "snapshots/*/config.json")


def held_instead(folder: Path) -> str | None:
    """Return what ``folder`` holds instead of a model's safetensors; None if nothing is known."""
    return next(_held(folder), None)


def _held(folder: Path) -> Iterator[str]:
    if folder.is_file():
        yield "it is a file: name the folder that it lies in"
    for name in (ADAPTER, "adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            yield f"{name} makes it {adapter_of(folder)}"
    models = [file.parent for pattern in _INSIDE for file in sorted(folder.glob(pattern))]
    for model in models:
        if (model / "model.safetensors").is_file() or any(model.glob("*.safetensors.index.json")):
            yield f"a model is in {model}: name that folder"
    for pattern, what in _BY_NAME:
        for file in sorted(folder.glob(pattern)):
            yield f"it holds {file.relative_to(folder)}: {what}"
    for model in models:
        yield f"a model is in {model}: name that folder"
    for file in sorted(folder.glob("*.safetensors")):
        if file.name == "model.safetensors" or file.name.startswith("model-"):
            continue
        yield (
            f"it holds {file.name}: weights are looked for in model.safetensors, or in the "
            "files that model.safetensors.index.json names"
        )


def adapter_of(folder: Path) -> str:
    """Return what the adapter in ``folder`` is one for, and the way out."""
    try:
        said = json.loads((folder / ADAPTER).read_text())
        kind, base = said.get("peft_type"), said.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        kind, base = None, None
    base = str(base or "another model")[:200]
    if kind not in (None, "LORA"):
        return (
            f"an adapter ({str(kind)[:40]}) for {base}: take that model, or one it is merged into"
        )
    return (
        f"an adapter (LoRA) for {base}: merge it into that model (merge_and_unload of PEFT) and "
        "take the merged folder"
    )
