"""Build our models of Transformer Engine's modules on a CPU; nothing of them is computed.

    PYTHONPATH=.:SITE LD_BIND_NOW=1 python tests/gpu/bundle/check_te.py

Its library and its extension are loaded with every symbol bound. Checkpoints of small models pass
between its layers and ours in torch, bit for bit. Every option of training and every FP8 recipe is
constructed. Exit status: 1 if something does not hold.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # layer_cases and wide_models

import torch
import transformer_engine.pytorch  # before anything pretends
from transformer_engine.pytorch.module.base import TransformerEngineBaseModule

from engine.platform import accelerator
from engine.platform.precision import Hardware

HOPPER = Hardware((9, 0), (13, 0), transformer_engine=True)
REFUSED = {
    "fp8 mxfp8": "needs compute capability 10.0",
    "experts one by one": "Transformer Engine's experts are grouped",
    "fp8 parameters": "no NVIDIA driver",
}
"""Row of the benchmark of training -> a part of the reason: kernels quantise FP8 parameters."""


def pretend() -> None:
    """Make this process ready as for a CPU, then let constructors see a GPU with what ours gets."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime"
    accelerator.has_transformer_engine = lambda: True
    accelerator.prepare()
    accelerator.has_gpu = lambda: True
    accelerator.backend = lambda: "gloo"
    accelerator.hardware = lambda: HOPPER
    torch.cuda.is_available = lambda: True
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")


@contextmanager
def one_process(case: str) -> Iterator[None]:
    """Process groups of one rank, in which models are built and then forgotten."""
    from engine.config.layout import LayoutConfig
    from tools.benchmarks import rank_imports

    store = rank_imports.PrefixStore(case, torch.distributed.HashStore())
    with rank_imports.process_groups(LayoutConfig(processes=1), 1, store=store):
        yield
    rank_imports.forget_models()


def exchanged(name: str, saver: str, loader: str) -> int:
    """Pass a checkpoint from one kind of layers to the other; return the number of tensors.

    Raises:
        AssertionError: a tensor came out another one.
    """
    from layer_cases import load, save
    from wide_models import WIDE_MODELS

    from engine.config.layout import LayoutConfig

    one, given = LayoutConfig(processes=1), {"model": WIDE_MODELS[name], "dtype": "bfloat16"}
    with tempfile.TemporaryDirectory() as folder:
        given["folder"] = Path(folder)
        with one_process(f"{name} {saver} saves"):
            saved = save(one, layers=saver, computes=False, **given)
        with one_process(f"{name} {loader} loads"):
            before, after = load(one, layers=loader, **given)
    assert set(saved) == set(after), f"other tensors: {set(saved) ^ set(after)}"
    assert not all(before[key].equal(saved[key]) for key in saved), "nothing had to be loaded"
    wrong = [key for key in saved if not after[key].equal(saved[key])]
    assert not wrong, f"other values: {wrong}"
    return len(saved)


def construct(name: str, keys: dict[str, object]) -> int:
    """Build a policy whose section ``training`` has ``keys``.

    Returns:
        How many of its modules are Transformer Engine's.
    """
    from engine.config.layout import LayoutConfig
    from engine.config.trainer import OptimizerConfig
    from engine.config.training import TrainingConfig
    from engine.training.heads.token_logprobs import TokenLogProbs
    from engine.training.trained_model import TrainedModel
    from tools.benchmarks.training.variants import SMALL_MODEL

    training = TrainingConfig(dtype="bfloat16", tokens_per_microbatch=64, **keys)
    with one_process(name):
        policy = TrainedModel(
            SMALL_MODEL,
            LayoutConfig(processes=1),
            OptimizerConfig(lr=1e-5),
            training,
            TokenLogProbs(1.0, training.logits_chunk_tokens),
        )
        modules = [module for chunk in policy.chunks for module in chunk.modules()]
        policy.close()
    theirs = (TransformerEngineBaseModule, transformer_engine.pytorch.DotProductAttention)
    count = sum(isinstance(module, theirs) for module in modules)
    assert count, "no module is Transformer Engine's"
    return count


def main() -> int:
    """Print a line for each thing that holds or does not."""
    pretend()
    from wide_models import WIDE_MODELS

    from tools.benchmarks.training.variants import variants

    failed = False
    for name in WIDE_MODELS:
        for saver, loader in (("engine", "torch"), ("torch", "engine")):
            try:
                said = f"{exchanged(name, saver, loader)} tensors, equal"
            except AssertionError as error:
                failed, said = True, f"FAILED: {error}"
            print(f"checkpoint of {name}, {saver} -> {loader}: {said}", flush=True)
    for variant in variants(gpu=True):
        reason, count = "", 0
        try:
            count = construct(variant.name, dict(variant.keys))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        expected = REFUSED.get(variant.name, "")
        holds = (expected in reason) if expected else not reason
        failed |= not holds
        said = (
            f"built, {count} modules of Transformer Engine"
            if not reason
            else f"{'refused' if holds else 'FAILED'}: {reason}"
        )
        print(f"{variant.name}: {said}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
