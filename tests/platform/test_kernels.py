"""Fused kernels serve where they are installed: Transformer Engine's, else Apex's, else torch's.

Processes of their own, with packages that have Apex's names: megatron chooses when it is imported.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fresh_process import run

from engine.platform.kernels import line, maker

PROGRAM = """
import json
from engine.platform import accelerator
accelerator.prepare()
from engine.platform.kernels import kernels
print(json.dumps(kernels(fp8="none")))
"""
APEX = {
    "apex/__init__.py": "",
    "apex/optimizers.py": (
        "import torch\n"
        "class FusedAdam(torch.optim.Optimizer): pass\n"
        "class FusedSGD(torch.optim.Optimizer): pass\n"
    ),
    "apex/multi_tensor_apply.py": "def multi_tensor_applier(*_): raise NotImplementedError\n",
    "amp_C.py": (
        "def multi_tensor_l2norm(*_): raise NotImplementedError\n"
        "def multi_tensor_scale(*_): raise NotImplementedError\n"
    ),
}
TRANSFORMER_ENGINE = {
    "transformer_engine/__init__.py": "",
    "transformer_engine/pytorch/__init__.py": "",
    "transformer_engine/pytorch/optimizers.py": (
        "class FusedAdam: pass\n"
        "class FusedSGD: pass\n"
        "def multi_tensor_applier(*_): raise NotImplementedError\n"
        "multi_tensor_l2norm = multi_tensor_scale = multi_tensor_applier\n"
    ),
    "transformer_engine_torch.py": "",
}
ONLY_TORCH = {"optimizer": "torch AdamW", "gradient norm": "torch", "linear": "torch"}
WITH_A_GPU_AT_FIRST = """
from engine.platform import accelerator
accelerator.has_gpu = lambda: True
assert not accelerator.has_transformer_engine()
accelerator.has_gpu = lambda: False
"""


def kernels_with(packages: dict[str, str], folder: Path) -> dict[str, str]:
    return kernels_and_log(packages, folder)[0]


def kernels_and_log(
    packages: dict[str, str], folder: Path, before: str = ""
) -> tuple[dict[str, str], str]:
    """What serves beside ``packages`` after the program ``before``, and what was logged."""
    for name, text in packages.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    done = run(before + PROGRAM, paths=(folder,))
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found, done.stderr


@pytest.mark.slow
def test_apex_serves_the_optimizer_where_transformer_engine_is_absent(tmp_path):
    found = kernels_with(APEX, tmp_path)
    assert found["optimizer"] == "Apex FusedAdam"
    assert found["gradient norm"] == "Apex"
    assert found["linear"] == "torch"


@pytest.mark.slow
def test_torch_serves_where_both_are_absent(tmp_path):
    found = kernels_with({}, tmp_path)
    assert found["optimizer"] == "torch AdamW"
    assert found["gradient norm"] == "torch"
    assert found["attention"] == "torch scaled_dot_product_attention"


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "import transformer_engine.pytorch.optimizers"])
def test_transformer_engine_does_not_serve_without_a_gpu(tmp_path, before):
    """Its optimizer would be taken, and fail in its first step; also where it was imported."""
    found, log = kernels_and_log(TRANSFORMER_ENGINE, tmp_path, before)
    assert found.items() >= ONLY_TORCH.items()
    assert "Transformer Engine" not in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "raised"),
    [
        ("transformer_engine", 'FileNotFoundError("no libcuda.so.1")'),
        ("transformer_engine/pytorch", 'RuntimeError("found two libraries")'),
        ("transformer_engine/pytorch", 'AssertionError("versions differ")'),
    ],
)
def test_a_transformer_engine_that_breaks_is_as_good_as_absent_and_says_why(tmp_path, part, raised):
    """megatron expects an ImportError and nothing else."""
    broken = {f"{part}/__init__.py": f"import transformer_engine_torch\nraise {raised}\n"}
    found, log = kernels_and_log({**TRANSFORMER_ENGINE, **broken}, tmp_path, WITH_A_GPU_AT_FIRST)
    assert found.items() >= ONLY_TORCH.items()
    error, _, message = raised.rstrip(')"').partition('("')
    assert log.count(f"torch's layers serve ({error}: {message})") == 1


@pytest.mark.slow
def test_an_absent_transformer_engine_needs_no_reason(tmp_path):
    _, log = kernels_and_log({}, tmp_path, WITH_A_GPU_AT_FIRST)
    assert "Transformer Engine" not in log


def test_who_made_a_kernel_is_told_by_its_package():
    class Kernel:
        pass

    for package, name in (
        ("transformer_engine.pytorch.optimizers", "Transformer Engine"),
        ("transformer_engine_torch", "Transformer Engine"),
        ("apex.optimizers", "Apex"),
        ("amp_C", "Apex"),
        ("torch.optim.adamw", "torch"),
        ("megatron.core.utils", "torch"),
        ("somebody_else", "somebody_else"),
    ):
        Kernel.__module__ = package
        assert maker(Kernel) == name


def test_the_log_has_one_line_with_all_of_them():
    assert line({"attention": "torch", "fp8": "none"}) == "kernels: attention: torch; fp8: none"
