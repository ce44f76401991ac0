"""A step's FLOPs: samples are trained on once, and passed forward before, at their own length."""

import pytest

from engine.config.model_sizes import model_sizes
from engine.config.training import TrainingConfig
from engine.models.flops import forward_flops
from engine.run.step_work import step_work
from tools.benchmarks.parity.models import GQA_MOE, MLA_MOE

LENGTHS = [10, 5]


def training(**keys) -> TrainingConfig:
    return TrainingConfig(**{"dtype": "float32", "tokens_per_microbatch": 64, **keys})


def forward(config):
    return forward_flops(model_sizes(config), LENGTHS)


def test_three_forward_passes_worth_of_training_and_two_of_scoring():
    work = step_work(GQA_MOE, training(), LENGTHS, scoring_passes=2)
    once = forward(GQA_MOE).total
    assert work.tokens == 15
    assert work.training_flops == 3 * once
    assert work.scoring_flops == 2 * once


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_prediction_head_counts_where_it_is_trained(weight):
    work = step_work(MLA_MOE, training(mtp_loss_weight=weight), LENGTHS, scoring_passes=1)
    flops = forward(MLA_MOE)
    assert flops.multi_token_prediction > 0
    assert work.training_flops == 3 * (flops.total if weight else flops.main)
    assert work.scoring_flops == flops.main
