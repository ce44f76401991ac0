"""Rules of the options: what contradicts itself is refused by name, before a process starts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import check_training_fits_layout, row_multiple


def training(**options: Any) -> TrainingConfig:
    return TrainingConfig(**{"dtype": "float32", "tokens_per_microbatch": 96, **options})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"recompute": "full", "recompute_modules": ["moe"]},
            "expected null where recompute is full, found moe",
        ),
        (
            {"recompute": "selective", "recompute_modules": []},
            "expected at least one module, found none",
        ),
        (
            {"recompute": "selective", "recompute_layers": 2},
            "expected 1 where recompute is selective, found 2",
        ),
        ({"overlap_param_gather": True}, "expected overlap_grad_reduce: true beside it"),
        ({"bucket_parameters": 9}, "expected null where overlap_grad_reduce is false, found 9"),
        ({"optimizer_offload": 0.5}, r"expected 0 where dtype is float32, found 0\.5"),
        ({"fp8": "blockwise"}, "expected none where dtype is float32, found blockwise"),
        ({"fp8_bfloat16_layers": 1}, "expected 0 where fp8 is none, found 1"),
        (
            {
                "dtype": "bfloat16",
                "fp8": "delayed",
                "recompute": "selective",
                "recompute_modules": ["layernorm", "core_attn"],
            },
            "expected another recipe where recompute_modules has layernorm: .* found delayed",
        ),
        (
            {"dtype": "bfloat16", "fp8": "delayed", "fp8_bfloat16_layers": 1},
            "expected 0 where fp8 is delayed, found 1",
        ),
        ({"fp8_parameters": True}, "expected false where fp8 is none: nothing multiplies them"),
        (
            {"dtype": "bfloat16", "fp8": "delayed", "fp8_parameters": True},
            "expected false where fp8 is delayed: the first weights",
        ),
        (
            {"dtype": "bfloat16", "fp8": "mxfp8", "fp8_parameters": True},
            "expected false where fp8 is mxfp8: megatron-core gathers them in bfloat16",
        ),
        (
            {
                "dtype": "bfloat16",
                "fp8": "blockwise",
                "fp8_parameters": True,
                "optimizer_offload": 0.5,
            },
            r"expected false where optimizer_offload is 0\.5",
        ),
        (
            {
                "dtype": "bfloat16",
                "fp8": "tensorwise",
                "fp8_parameters": True,
                "overlap_grad_reduce": True,
                "overlap_param_gather": True,
            },
            "expected false where overlap_param_gather is true",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        training(**options)


def test_the_allgather_dispatcher_is_refused_with_pipeline_stages_and_says_why():
    pipeline = LayoutConfig(processes=2, pp=2)
    with pytest.raises(ValueError, match=r"dispatcher: expected alltoall where layout\.pp is 2"):
        check_training_fits_layout(training(dispatcher="allgather"), pipeline)
    check_training_fits_layout(training(dispatcher="alltoall"), pipeline)
    check_training_fits_layout(
        training(dispatcher="allgather"), LayoutConfig(processes=4, tp=2, ep=2)
    )


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 500))
def test_rows_for_allgather_are_all_of_one_length(tp, cp, tokens):
    layout = LayoutConfig(processes=tp * cp, tp=tp, cp=cp)
    config = TrainingConfig(dtype="float32", tokens_per_microbatch=tokens, dispatcher="allgather")
    multiple = row_multiple(config, layout)
    assert multiple % layout.row_multiple == 0
    assert tokens <= multiple < tokens + layout.row_multiple  # a full row is padded to it, too


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["blockwise", "mxfp8"]))
def test_rows_for_fp8_give_every_rank_a_number_of_tokens_that_its_products_take(tp, cp, recipe):
    layout = LayoutConfig(processes=tp * cp, tp=tp, cp=cp)
    multiple = row_multiple(training(dtype="bfloat16", fp8=recipe), layout)
    assert multiple % layout.row_multiple == 0
    needed = 32 if recipe == "mxfp8" else 16 if tp == 1 else 128  # gathered in whole tiles
    assert multiple % (tp * cp * needed) == 0
