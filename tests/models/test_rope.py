"""Rotary settings are read from either spelling, and what is not known is refused by name."""

from __future__ import annotations

import math

import pytest
import torch

from engine.errors import RunError
from engine.models.rope import inverse_frequencies
from engine.models.rope_settings import (
    GROUPED,
    attention_factor,
    rope_settings,
    yarn_arguments,
)

LLAMA = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}


def test_both_spellings_say_the_same():
    new = {"rope_parameters": {**LLAMA, "rope_theta": 5e5}}
    old = {"rope_theta": 5e5, "rope_scaling": LLAMA}
    older = {"rope_theta": 5e5, "rope_scaling": {**LLAMA, "type": LLAMA["rope_type"]}}
    del older["rope_scaling"]["rope_type"]
    found = [rope_settings(config, ("llama3",)) for config in (new, old, older)]
    assert found[0] == found[1] == found[2]


def test_no_scaling_is_the_default_type():
    found = rope_settings({"rope_theta": 1e4, "rope_scaling": None}, ("default",))
    assert found == {"rope_theta": 1e4, "rope_type": "default"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_type": "longrope", "rope_theta": 1e4}, "rope_type 'longrope', its family knows"),
        ({"rope_theta": 1e4, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_is_not_known_is_refused(settings, message):
    with pytest.raises(RunError, match=message):
        rope_settings({"rope_parameters": settings}, ("default", "llama3"))


def test_llama_keeps_short_wavelengths_and_stretches_long_ones():
    plain = inverse_frequencies({"rope_type": "default", "rope_theta": 5e5}, 128)
    found = inverse_frequencies({**LLAMA, "rope_theta": 5e5}, 128)
    wavelengths = 2 * math.pi / plain
    assert torch.equal(found[wavelengths < 8192 / 4], plain[wavelengths < 8192 / 4])
    long = wavelengths > 8192
    assert torch.allclose(found[long], plain[long] / 8) and long.any()
    assert (found[1:] < found[:-1]).all()


def test_yarn_without_a_factor_of_its_own_takes_it_from_the_stretch():
    whole = 0.1 * math.log(40) + 1
    found = yarn_arguments({**YARN, "mscale": 0.7, "mscale_all_dim": 0})
    assert found["mscale"] == pytest.approx(1.0) and found["mscale_all_dim"] == 0
    both = yarn_arguments({**YARN, "mscale": 0.7, "mscale_all_dim": 0.5})
    assert both["mscale"] == pytest.approx(0.7) and both["mscale_all_dim"] == 0.5
    given = yarn_arguments({**YARN, "attention_factor": whole})
    assert given["mscale"] == pytest.approx(1.0)


def test_yarn_that_megatron_cannot_express_is_refused():
    with pytest.raises(RunError, match="truncate"):
        yarn_arguments({**YARN, "truncate": False})


def test_the_factor_of_yarns_own_code_multiplies_the_others():
    whole = 0.1 * math.log(40) + 1
    assert attention_factor({**YARN, "attn_factor": 1 / whole}) == pytest.approx(1.0)
    both = {**YARN, "attention_factor": 3.0, "attn_factor": 0.5}
    assert attention_factor(both) == 1.5
    assert attention_factor({"rope_type": "linear", "factor": 2.0, "attn_factor": 3.0}) == 1.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_theta": 1e4, "rope_scaling": {**YARN, "factor": "40"}}, "factor '40' .* number"),
        ({"rope_theta": 1e4, "rope_scaling": {**YARN, "factor": -2}}, "factor -2 .* positive"),
        ({"rope_theta": 0.5}, "rope_theta 0.5 .* at least 1"),
        ({"rope_theta": True}, "rope_theta True"),
        ({"rope_theta": 1e4, "rope_scaling": {**YARN, "truncate": "no"}}, "truncate 'no'"),
        ({"rope_theta": 1e4, "rope_scaling": "yarn"}, "rope_scaling 'yarn', expected one set"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "the same for all layers"),
        (
            {"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": YARN},
            "drop the former with its rope_theta 1000000",
        ),
        (
            {"original_max_position_embeddings": 40, "rope_theta": 1e4, "rope_scaling": YARN},
            "original_max_position_embeddings 40 and, inside its rotary settings, 4096",
        ),
        (
            {"partial_rotary_factor": 0.5, "rope_theta": 1e4, "rope_scaling": {
                **YARN, "partial_rotary_factor": 0.25
            }},
            "partial_rotary_factor 0.5 and, inside its rotary settings, 0.25",
        ),
    ],
)  # fmt: skip
def test_what_says_nothing_clear_is_refused(config, message):
    with pytest.raises(RunError, match=message):
        rope_settings(config, GROUPED, partial_rotation=True)


@pytest.mark.parametrize("key", ["factor", "low_freq_factor", "high_freq_factor", "rope_theta"])
def test_a_setting_that_is_needed_and_missing_is_named(key):
    settings = {**LLAMA, "rope_theta": 5e5}
    del settings[key]
    with pytest.raises(KeyError, match=key):
        rope_settings({"rope_parameters": settings}, GROUPED)
