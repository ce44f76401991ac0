"""A process made ready for megatron on a CPU still does what other libraries expect of torch.

Programs of their own: the order of first uses decides, and pytest's process has had its own.
"""

from __future__ import annotations

import pytest
from fresh_process import run

CONTEXT = """
from engine.platform import accelerator
accelerator.prepare()
import torch
with torch.device("meta"):
    made = [torch.empty(2), torch.arange(3), torch.full((2,), 1.0), torch.nn.Linear(2, 2).weight]
assert all(tensor.device.type == "meta" for tensor in made), made
assert torch.zeros(2, device="cuda").device.type == "cpu"
"""
TRANSFORMERS = """
import sys
from pathlib import Path
from engine.platform import accelerator
accelerator.prepare()
import torch
from transformers import AutoModelForCausalLM
from tools.benchmarks.tiny_model import tiny_qwen3_moe
folder = tiny_qwen3_moe(Path(sys.argv[1]), seed=0)
rotary = AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb
computed, _ = rotary.compute_default_rope_parameters(rotary.config)
assert torch.equal(rotary.inv_freq, computed), rotary.inv_freq
"""


@pytest.mark.slow
def test_a_device_context_is_obeyed():
    run(CONTEXT)


@pytest.mark.slow
def test_transformers_loads_a_model_whole(tmp_path):
    run(TRANSFORMERS, tmp_path / "model")
