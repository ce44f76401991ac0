"""A step's FLOPs: every sample is scored twice and trained on once, at its own length."""

from types import SimpleNamespace

import pytest

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.models.family import family_of
from engine.models.flops import forward_flops
from recipes.step_work import devices, step_work
from tools.benchmarks.parity.models import GQA_MOE, MLA_MOE

LENGTHS = [(3, 8), (5, 1)]
SAMPLES = [SimpleNamespace(prompt_tokens=[1] * p, tokens=[1] * r) for p, r in LENGTHS]


def training(**keys) -> TrainingConfig:
    return TrainingConfig(**{"dtype": "float32", "tokens_per_microbatch": 64, **keys})


def forward(config):
    architecture = family_of(config).architecture(config)
    return forward_flops(architecture, config["vocab_size"], [10, 5])


def test_three_forward_passes_worth_of_training_and_two_of_scoring():
    work = step_work(GQA_MOE, training(), SAMPLES)
    once = forward(GQA_MOE).total
    assert work.tokens == 15
    assert work.training_flops == 3 * once
    assert work.scoring_flops == 2 * once


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_prediction_head_counts_where_it_is_trained(weight):
    work = step_work(MLA_MOE, training(mtp_loss_weight=weight), SAMPLES)
    flops = forward(MLA_MOE)
    assert flops.multi_token_prediction > 0
    assert work.training_flops == 3 * (flops.total if weight else flops.main)
    assert work.scoring_flops == 2 * flops.main


@pytest.mark.parametrize(
    ("keys", "precision"),
    [
        ({}, "float32"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "bfloat16", "fp8": "blockwise"}, "fp8"),
    ],
)
def test_utilisation_is_measured_in_the_precision_that_multiplies(keys, precision):
    found = devices(LayoutConfig(processes=4, tp=2), training(**keys))
    assert (found.count, found.precision) == (4, precision)
