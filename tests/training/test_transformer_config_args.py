"""Options as megatron reads them, and the memory of a hosted module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import model_sizes
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.models.family import family_of
from engine.models.transformer_config_args import transformer_config_args
from engine.platform import accelerator
from engine.platform.precision import Hardware
from engine.training.host_memory import HostedParameters
from tools.benchmarks.parity.models import DENSE, GQA_MOE, MLA_MOE

ONE = LayoutConfig(processes=1)
H100 = Hardware((9, 0), (13, 0), transformer_engine=True)


def arguments(model: dict[str, Any], layout: LayoutConfig = ONE, **options: Any) -> dict[str, Any]:
    training = TrainingConfig(**{"dtype": "bfloat16", "tokens_per_microbatch": 96, **options})
    architecture = family_of(model).architecture(model)
    return {**architecture, **transformer_config_args(training, layout, model_sizes(model))}


@pytest.fixture
def hopper(monkeypatch):
    """As far as refusals go; the kernels chosen stay those of this machine."""
    monkeypatch.setattr(accelerator, "hardware", lambda: H100)


@pytest.mark.parametrize(
    ("recipe", "form"), [("blockwise", "e4m3"), ("tensorwise", "hybrid"), ("delayed", "hybrid")]
)
def test_recipes_reach_megatron_under_its_names(hopper, recipe, form):
    sized = {**DENSE, "intermediate_size": 96}
    config = TransformerConfig(**arguments(sized, fp8=recipe))
    assert (config.fp8_recipe, config.fp8, config.bf16) == (recipe, form, True)
    assert not config.first_last_layers_bf16 and not config.fp8_param
    assert config.moe_router_dtype == "fp32"


def test_fp8_parameters_reach_megatron(hopper):
    sized = {**DENSE, "intermediate_size": 96}
    config = TransformerConfig(**arguments(sized, fp8="blockwise", fp8_parameters=True))
    assert config.fp8_param


def test_first_and_last_layers_stay_in_bfloat16(hopper):
    sized = {**DENSE, "intermediate_size": 96}
    config = TransformerConfig(**arguments(sized, fp8="blockwise", fp8_bfloat16_layers=2))
    assert config.first_last_layers_bf16
    assert config.num_layers_at_start_in_bf16 == config.num_layers_at_end_in_bf16 == 2


def test_sizes_that_fp8_cannot_multiply_are_named_as_one_rank_has_them(hopper):
    with pytest.raises(RunError, match=r"training\.fp8: blockwise: .* 40 hidden columns of each e"):
        arguments(GQA_MOE, fp8="blockwise")
    with pytest.raises(RunError, match=r"28 compressed query columns, 20 compressed key and value"):
        arguments(MLA_MOE, fp8="blockwise")
    sized = {**DENSE, "intermediate_size": 96}
    arguments(sized, fp8="tensorwise")
    halved = LayoutConfig(processes=4, tp=4)
    with pytest.raises(RunError, match="found 24 hidden columns of dense layers"):
        arguments(sized, halved, fp8="tensorwise")


def test_what_ranks_gather_quantised_in_blocks_comes_in_whole_blocks(hopper):
    sized = {**DENSE, "intermediate_size": 96, "head_dim": 16}
    halved = LayoutConfig(processes=2, tp=2)
    arguments({**sized, "hidden_size": 128}, halved, fp8="blockwise")
    arguments(sized, halved, fp8="tensorwise")
    with pytest.raises(RunError, match="128 divides, found 48 hidden columns between layers"):
        arguments(sized, halved, fp8="blockwise")


def test_fp8_is_refused_by_name_where_the_hardware_lacks_it(hopper):
    with pytest.raises(RunError, match=r"training\.fp8: mxfp8 needs compute capability 10\.0"):
        arguments(DENSE, fp8="mxfp8")


def test_without_a_gpu_fp8_and_offload_are_refused_by_name():
    with pytest.raises(RunError, match=r"training\.fp8: blockwise needs a GPU, found none"):
        arguments(DENSE, fp8="blockwise")
    with pytest.raises(RunError, match=r"training\.optimizer_offload: expected 0 without a GPU"):
        arguments(DENSE, optimizer_offload=1.0)


def test_selective_recomputes_what_the_model_has():
    found = arguments(MLA_MOE, recompute="selective")
    assert found["recompute_modules"] == ["layernorm", "mla_up_proj"]
    assert MLATransformerConfig(**found).recompute_granularity == "selective"
    assert arguments(DENSE, recompute="selective")["recompute_modules"] == ["layernorm"]


@pytest.mark.parametrize("module", ["mla_up_proj", "moe", "shared_experts", "moe_act"])
def test_recomputing_what_a_model_lacks_is_refused_by_name(module):
    with pytest.raises(RunError, match=f"training.recompute_modules: {module} needs"):
        arguments(DENSE, recompute="selective", recompute_modules=[module])


def test_norms_that_linear_layers_hold_cannot_be_recomputed(monkeypatch):
    monkeypatch.setattr(accelerator, "has_transformer_engine", lambda: True)
    with pytest.raises(RunError, match=r"training\.recompute: selective finds nothing"):
        arguments(DENSE, recompute="selective")
    assert arguments(MLA_MOE, recompute="selective")["recompute_modules"][0] == "layernorm"


def test_selective_with_nothing_to_recompute_is_refused(hopper):
    with pytest.raises(RunError, match=r"training\.recompute: selective finds nothing"):
        sized = {**DENSE, "intermediate_size": 96}
        arguments(sized, recompute="selective", fp8="delayed")


def test_quantised_copies_of_hosted_parameters_do_not_outstay_the_visit():
    module = torch.nn.Linear(3, 2)
    module._fp8_workspaces = {}
    with HostedParameters([module]).on_device("cpu"):
        module._fp8_workspaces["weight"] = torch.ones(2, 3)
    assert module._fp8_workspaces == {}


def test_hosted_parameters_visit_the_device_and_come_home(monkeypatch):
    module = torch.nn.Linear(3, 2)
    home, kept = module.weight.data.data_ptr(), module.weight.detach().clone()
    hosted = HostedParameters([module])
    # Moving to a device copies; from the CPU to the CPU it would not.
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self.clone())
    with hosted.on_device("cuda"):
        assert module.weight.data.data_ptr() != home and module.weight.equal(kept)
        module.weight.data.zero_()
    assert module.weight.data.data_ptr() == home and module.weight.equal(kept)
    with pytest.raises(KeyError), hosted.on_device("cuda"):
        raise KeyError
    assert module.weight.data.data_ptr() == home
