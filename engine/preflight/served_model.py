"""Check that the servers can sample the model, and compute what the trainer computes.

What SGLang 0.5.20 does otherwise was found by reading it and by starting it; the parity gate would
find it, too, but only after the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.config.model_sizes import model_sizes
from engine.config.servers import ServersConfig
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.models.family import family_of
from engine.models.rope_settings import GROUPED, LATENT, attention_factor, rope_settings
from engine.models.sequence_classifier import as_built, is_sequence_classifier
from engine.platform.gpu_driver import has_nvidia_device
from engine.preflight.finding import Finding, warning
from engine.preflight.model_folder import MODEL
from engine.preflight.sections import Sections
from engine.weights.fused_experts import is_fused
from engine.weights.stored_folder import StoredFolder

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
        problems = list(_problems(folder))
    except RunError:  # what is wrong with the folder itself is told by its own check
        return
    for says in problems:
        yield Finding(MODEL, says)
    if has_nvidia_device():
        return
    for says in _problems_on_the_cpu(folder):
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
    yield from _rotation(folder.config)


def _problems_on_the_cpu(folder: StoredFolder) -> Iterator[str]:
    """Yield what a server on a CPU cannot do."""
    if model_sizes(folder.config).latent:
        yield (
            "servers on a CPU have no latent attention (kv_lora_rank in config.json), and this "
            "machine shows no GPU: sample this model on GPUs"
        )
    if folder.quantised is not None:
        yield (
            "servers on a CPU cannot compute in block FP8 (quantization_config in config.json), "
            f"and this machine shows no GPU: {_PLAIN_COPY}"
        )


def _rotation(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield where servers would turn queries and keys otherwise than the trainer."""
    config, latent = as_built(config), model_sizes(config).latent
    known = LATENT if latent else GROUPED
    settings = rope_settings(config, known, partial_rotation=True)
    kind = settings["rope_type"]
    if config["model_type"] == "mixtral" and kind != "default":
        yield f"servers would leave out rope_type {kind!r}: SGLang's Mixtral knows default"
    elif kind == "linear" and isinstance(settings["factor"], int):
        factor = settings["factor"]
        yield f"servers want factor {float(factor)} for {factor} in the rotary settings"
    elif kind == "yarn":
        ours, theirs = attention_factor(settings), _served_factor(settings, latent)
        if not math.isclose(ours, theirs, rel_tol=1e-6):
            plain = _served_factor({"factor": settings["factor"]}, latent)
            way_out = (
                ""
                if latent  # there mscale_all_dim changes more than this
                else f": write attn_factor {ours / plain:.10g} in place of attention_factor, "
                "mscale and mscale_all_dim"
            )
            yield (
                f"servers would multiply the rotary embedding by {theirs:.6g}, the trainer, as "
                f"config.json says, by {ours:.6g}{way_out}"
            )
    if kind == "yarn" and settings.get("extrapolation_factor", 1) != 1:
        yield "servers would follow extrapolation_factor of config.json, and nobody else: delete it"


def _served_factor(settings: Mapping[str, Any], latent: bool) -> float:
    """Return what SGLang multiplies cosine and sine by.

    Sources: ``YaRNScalingRotaryEmbedding`` and, for latent attention,
    ``DeepseekScalingRotaryEmbedding`` in sglang/srt/layers/rotary_embedding.
    """
    own, over_all = settings.get("mscale"), settings.get("mscale_all_dim")
    if latent:
        own, over_all = 1.0 if own is None else own, 0.0 if over_all is None else over_all
    elif own is None or over_all is None:
        own, over_all = 1.0, 0.0
    stretch = 0.1 * math.log(max(1.0, settings["factor"]))
    factor: float = (stretch * own + 1) / (stretch * over_all + 1)
    return factor * float(settings.get("attn_factor", 1.0))
