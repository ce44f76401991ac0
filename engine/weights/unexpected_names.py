"""Say why a folder's tensors may have other names than those of its family."""

from __future__ import annotations

import re

from engine.config.model_sizes import model_sizes
from engine.models.families.layer_rules import prediction_depths
from engine.models.family import HuggingFaceConfig

_WRAPPERS = {
    "base_model.model.": "a PEFT model: merge it (merge_and_unload) and save the merged model",
    "module.": "a model inside DataParallel or DeepSpeed: save the model inside (.module)",
    "_orig_mod.": "a compiled model: save the model inside (._orig_mod)",
    "language_model.": "the language model of another one: save it alone",
    "model.": "a model inside another module: save the model itself",
}
"""What another program puts before all names -> what it saved, and the way out."""
_IN_EVERY_LAYER = ("input_layernorm.weight", "self_attn.o_proj.weight")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


def likely_cause(config: HuggingFaceConfig, lacking: set[str], foreign: set[str]) -> str:
    """Return the end of a message about names: the likely cause and the way out, or "".

    Args:
        config: contents of ``config.json``.
        lacking: names of the tensors that the family needs and the folder has not.
        foreign: names of those that the folder has and the family does not name.
    """
    if not lacking and not foreign:
        return ""
    if any(".lora_A." in name or ".lora_B." in name for name in foreign):
        return "; an adapter lies beside the weights: merge it (merge_and_unload of PEFT)"
    for prefix, what in _WRAPPERS.items():
        if lacking and all(prefix + name in foreign for name in lacking):
            return f"; its names begin with {prefix}, as those of {what}"
    bare = {name.removeprefix("model.") for name in lacking if name.startswith("model.")}
    if bare and bare <= foreign:
        return "; it was saved without model. before its names: save it as a ForCausalLM model"
    return _of_one_kind(config, lacking, foreign)


def _of_one_kind(config: HuggingFaceConfig, lacking: set[str], foreign: set[str]) -> str:
    """Return the way out where ``config.json`` names a part that is not there, or fewer layers."""
    if lacking == {"lm_head.weight"}:
        return (
            "; if the embedding is its output layer, too, set tie_word_embeddings to true in "
            "config.json"
        )
    heads = tuple(prediction_depths(config))
    if heads and lacking and all(name.startswith(heads) for name in lacking):
        return (
            "; to leave the prediction head out, set num_nextn_predict_layers to 0 in config.json"
        )
    return _other_layers(model_sizes(config).layers, lacking, foreign)


def _other_layers(layers: int, lacking: set[str], foreign: set[str]) -> str:
    """Return what to say where whole layers are lacking at the end, or more are there, else ""."""
    names = lacking | foreign
    found = {_LAYER.match(name) for name in names}
    if None in found or (lacking and foreign):
        return ""
    numbers = {int(one[1]) for one in found if one}
    if not all(f"model.layers.{n}.{part}" in names for n in numbers for part in _IN_EVERY_LAYER):
        return ""
    stored = min(numbers) if lacking else max(numbers) + 1
    return f"; config.json says num_hidden_layers {layers}, the folder holds {stored}"
