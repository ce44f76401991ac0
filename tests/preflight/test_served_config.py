"""What servers cannot read in ``config.json`` is told before they start."""

from __future__ import annotations

import pytest
from model_folders import DEEPSEEK, MIXTRAL, QWEN3

from engine.errors import RunError
from engine.models.family import FAMILIES, family_of
from engine.models.sequence_classifier import language_model_class
from engine.preflight.served_config import problems

LLAMA = {**QWEN3, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize("config", [QWEN3, MIXTRAL, DEEPSEEK, LLAMA], ids=lambda c: c["model_type"])
def test_a_published_config_is_passed(config):
    assert list(problems(config)) == []
    more = {**config, "architectures": [*config["architectures"], "AutoModel"]}
    assert list(problems(more)) == []


@pytest.mark.parametrize("found", [None, [], ["Qwen2ForCausalLM"], "Qwen3ForCausalLM", [7] * 500])
def test_the_class_that_servers_choose_is_the_familys(found):
    (said,) = problems({**QWEN3, "architectures": found})
    assert 'expected "architectures": ["Qwen3ForCausalLM"]' in said and len(said) < 300
    absent = {key: value for key, value in QWEN3.items() if key != "architectures"}
    assert (said in problems(absent)) == (found is None)


def test_nulls_that_servers_refuse_are_named_together():
    config = {**QWEN3, "use_cache": None, "head_dim": None, "rope_scaling": None}
    (said,) = problems(config)
    assert "no null for head_dim, use_cache in config.json: delete the keys" in said
    (said,) = problems({**MIXTRAL, "tie_word_embeddings": None, "use_sliding_window": None})
    assert "no null for tie_word_embeddings in config.json: delete the key," in said


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**QWEN3, "dual_chunk_attention_config": {"chunk_size": 64}}, "follow dual_chunk_attent"),
        ({**QWEN3, "rope_is_neox_style": False}, "follow rope_is_neox_style"),
        ({**MIXTRAL, "head_dim": 12}, "num_attention_heads = 6 channels, and head_dim in config"),
        ({**QWEN3, "rms_norm_eps": 1}, "want rms_norm_eps 1.0 for 1 in config.json"),
        ({**DEEPSEEK, "routed_scaling_factor": 2}, "want routed_scaling_factor 2.0 for 2"),
        ({**QWEN3, "torch_dtype": "bf16"}, "know no dtype 'bf16'"),
        ({**QWEN3, "dtype": "torch.float32"}, "know no dtype 'torch.float32'"),
        ({**LLAMA, "hidden_size": 26}, "a multiple of num_attention_heads, found 26 and 4"),
    ],
)
def test_what_servers_alone_follow_or_do_not_read_is_refused(config, words):
    (said,) = problems(config)
    assert words in said


def test_what_changes_nothing_is_passed():
    config = {**MIXTRAL, "head_dim": 6, "rope_is_neox_style": True}
    assert list(problems({**config, "dual_chunk_attention_config": None})) == []
    assert list(problems({**QWEN3, "head_dim": 12, "hidden_size": 26})) == []
    assert list(problems({**QWEN3, "routed_scaling_factor": 2, "dtype": "half"})) == []


@pytest.mark.slow  # transformers starts in seven seconds
@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_refuses_is_told(name):
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    assert language_model_class({"model_type": name}) == CLASSES[name]
    known = AutoConfig.for_model(name).to_dict() | {"architectures": [CLASSES[name]]}
    changes = [(key, None) for key in known.keys() - {"model_type", "transformers_version"}]
    changes += [(key, 1) for key, value in known.items() if isinstance(value, float)]
    changes += [("dtype", "bf16"), ("hidden_size", 10 * known["num_attention_heads"] + 1)]
    refused = []
    for key, value in changes:
        try:
            AutoConfig.for_model(name, **{key: value})
        except Exception:  # has no narrower class
            refused.append((key, value))
            assert told({**known, key: value}, key), (key, value)
    assert ("use_cache", None) in refused and ("initializer_range", 1) in refused


def told(config, key):
    try:
        family_of(config).architecture(config)
    except RunError as error:
        if key in str(error):
            return True
    return any(key in said for said in problems({"hidden_size": 8, **config}))
