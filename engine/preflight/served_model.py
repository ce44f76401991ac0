"""Check that the servers can sample the model, and compute what the trainer computes.

What SGLang 0.5.20 does otherwise was found by reading it and by starting it; the parity gate would
find it, too, but only after the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.config.model_sizes import model_sizes
from engine.config.servers import ServersConfig
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.models.family import family_of
from engine.models.sequence_classifier import is_sequence_classifier
from engine.platform.gpu_driver import has_nvidia_device
from engine.preflight import served_config, served_rotation
from engine.preflight.finding import Finding, warning
from engine.preflight.model_folder import MODEL
from engine.preflight.sections import Sections
from engine.weights.fused_experts import is_fused
from engine.weights.stored_folder import INDEX, WHOLE, StoredFolder

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_NEVER_TIED = ("mixtral", "qwen3_moe")
"""Families whose output layer SGLang does not tie."""
_PLAIN_COPY = (
    "start from a plain copy: python -m tools.convert hf-to-megatron --from FOLDER --to THERE, "
    "then megatron-to-hf --from THERE --to COPY"
)


def check(sections: Sections) -> Iterable[Finding]:
    """Find what would stop the servers of a run from sampling the key ``model``."""
    path, training = sections.get("model", Path), sections.get("training", TrainingConfig)
    if path is None or training is None or sections.get("servers", ServersConfig) is None:
        return
    try:
        folder = StoredFolder(path)
        family_of(folder.config).architecture(folder.config)
        problems, on_the_cpu = list(_problems(folder)), list(_problems_on_the_cpu(folder))
    except RunError:  # what is wrong with the folder itself is told by its own check
        return
    for says in problems:
        yield Finding(MODEL, says)
    if has_nvidia_device():
        return
    for says in on_the_cpu:
        # In bfloat16 the run is meant for GPUs, and this need not be the machine that has them.
        yield Finding(MODEL, says) if training.dtype == "float32" else warning(MODEL, says)


def _problems(folder: StoredFolder) -> Iterator[str]:
    """Yield what no server can do."""
    if is_sequence_classifier(folder.config):
        yield (
            "expected a language model, from which servers can sample, found the sequence "
            f"classification model {folder.config['architectures'][0]}"
        )
    if any(map(is_fused, folder.stored)):
        yield (
            "servers cannot read experts that transformers saved as one tensor a layer "
            f"(experts.gate_up_proj): {_PLAIN_COPY}"
        )
    yield from _tied_in_part(folder)
    yield from _files_beside(folder)
    if folder.quantised is not None and not _holds_fp8(folder):
        yield (
            "servers would take the weights for block FP8 (quantization_config in config.json), "
            "and none is: delete quantization_config"
        )
    yield from served_config.problems(folder.config)
    yield from served_rotation.problems(folder.config)


def _tied_in_part(folder: StoredFolder) -> Iterator[str]:
    """Yield which name of a tied output layer servers miss: what they do not load stays random."""
    if not folder.config.get("tie_word_embeddings"):
        return
    family = folder.config["model_type"]
    if _EMBEDDING not in folder.stored:
        yield (
            f"servers read a tied output layer from {_EMBEDDING} alone: store it by that name, too"
        )
    elif family in _NEVER_TIED and _OUTPUT not in folder.stored:
        yield (
            f"servers of {family} tie no output layer (tie_word_embeddings in config.json), and "
            f"the folder holds no {_OUTPUT}: store the embedding by that name, too"
        )


def _files_beside(folder: StoredFolder) -> Iterator[str]:
    """Yield files from which servers would take weights: without an index they read them all."""
    if (folder.path / INDEX).is_file():
        return
    for file in sorted(folder.path.glob("*.safetensors")):
        if file.name == WHOLE:
            continue
        try:
            both = sorted(folder.header(file).keys() & folder.stored.keys())
        except RunError as error:
            yield str(error).removeprefix("model: ")
            continue
        if both:
            yield (
                f"servers would take {both[0]} from {file.name} beside {WHOLE}, which the trainer "
                "reads alone: move that file out of the folder"
            )


def _holds_fp8(folder: StoredFolder) -> bool:
    return any(folder.in_header(name).dtype.startswith("F8") for name in folder.stored)


def _problems_on_the_cpu(folder: StoredFolder) -> Iterator[str]:
    """Yield what a server on a CPU cannot do."""
    if model_sizes(folder.config).latent:
        yield (
            "servers on a CPU have no latent attention (kv_lora_rank in config.json), and this "
            "machine shows no GPU: sample this model on GPUs"
        )
    if folder.quantised is not None and _holds_fp8(folder):
        yield (
            "servers on a CPU cannot compute in block FP8 (quantization_config in config.json), "
            f"and this machine shows no GPU: {_PLAIN_COPY}"
        )
