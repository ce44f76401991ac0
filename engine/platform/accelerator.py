"""Tell the device that a process computes on, and ready the process for megatron-core.

``prepare()`` comes before the first import of ``megatron``: megatron-core speaks of ``torch.cuda``
in some hundreds of places, and on a machine without a GPU that vocabulary is first taught to mean
the CPU (``cuda_on_cpu``), then megatron's bugs of that path are mended (``megatron_fixes``).
Transformer Engine is hidden where it does not serve: megatron would take whatever can be imported.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings

import torch

from engine.platform import cuda_on_cpu, uneven_collectives
from engine.platform.cudnn import prefer_torchs_cudnn
from engine.platform.precision import Hardware

_prepared = False
_log = logging.getLogger(__name__)


def has_gpu() -> bool:
    """Return whether this process computes on a CUDA device."""
    return torch.cuda.is_available()


def backend() -> str:
    """Return the torch.distributed backend of this device: ``nccl`` or ``gloo``."""
    return "nccl" if has_gpu() else "gloo"


def device_name() -> str:
    """Return the device's product name, e.g. ``NVIDIA H100 80GB HBM3``, or ``cpu``."""
    return torch.cuda.get_device_name() if has_gpu() else "cpu"


@functools.cache
def has_transformer_engine() -> bool:
    """Return whether Transformer Engine serves this process: a GPU is there, and it is installed.

    It is imported to find out: it is there but unusable where its CUDA does not fit the driver's,
    or its library not its torch extension. Such a reason is logged: torch's layers are far slower.
    """
    if not has_gpu():
        return False
    prefer_torchs_cudnn()
    try:
        import transformer_engine.pytorch  # noqa: F401
    except Exception as error:  # it also raises OSError, RuntimeError and AssertionError
        if not (isinstance(error, ModuleNotFoundError) and error.name == "transformer_engine"):
            _log.warning(
                "Transformer Engine cannot be imported, so torch's layers serve (%s: %s)",
                type(error).__name__,
                error,
            )
        return False
    return True


def hardware() -> Hardware:
    """Return what decides about precision on this process's device."""
    cuda = torch.version.cuda
    return Hardware(
        capability=torch.cuda.get_device_capability() if has_gpu() else None,
        cuda=None if cuda is None else (int(cuda.split(".")[0]), int(cuda.split(".")[1])),
        transformer_engine=has_transformer_engine(),
    )


def prepare(local_rank: int = 0) -> None:
    """Make this process ready to import and run megatron-core; a second call changes nothing.

    Args:
        local_rank: index of this process among those of its machine; picks its GPU.

    Raises:
        RuntimeError: megatron-core was imported before the first call, and has kept names of its
            own for what this function replaces.
    """
    global _prepared
    if _prepared:
        return
    if "megatron.core" in sys.modules:
        raise RuntimeError("accelerator.prepare() must come before the first import of megatron")
    _quiet_megatron()
    gpu = has_gpu()
    if gpu:
        # Packed rows and experts' shares of them differ in length from step to step: blocks of a
        # fixed size would be cut into pieces that fit nothing. Read at the first allocation.
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        # One kernel for all experts in 16 bits. cuBLAS's, one each, let an H100 wait for its host:
        # 1.18x the seconds with 16 experts of Qwen3-30B-A3B (tests/gpu/results.md).
        # Transformer Engine 2.11 reads this at every product; it has that kernel for Hopper only.
        os.environ.setdefault("NVTE_USE_CUTLASS_GROUPED_GEMM", "1")
        torch.cuda.set_device(local_rank)
    else:
        # Set before torch._dynamo is first imported: compiling pays nothing on a few CPU kernels.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        cuda_on_cpu.install()
        uneven_collectives.install()
    if not has_transformer_engine():
        _hide_transformer_engine()
    from engine.platform import megatron_fixes  # imports megatron, so only now

    megatron_fixes.apply(gpu, has_transformer_engine())
    _prepared = True


def _hide_transformer_engine() -> None:
    """Make each import of Transformer Engine an ImportError, the only one that megatron expects.

    Without a GPU its import may succeed, and its optimizer then fails in the first step; or raise
    what megatron does not catch. A failed import leaves modules that could be imported by name.
    """
    names = ("transformer_engine", "transformer_engine_torch")
    for module in list(sys.modules):
        if module.partition(".")[0] in names:
            del sys.modules[module]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: cannot be imported


def _quiet_megatron() -> None:
    """Silence megatron-core's notes on optional packages; environment.json lists what serves."""
    warnings.filterwarnings("ignore", module=r"megatron\.")
    # torch 2.13 renamed collectives that megatron-core 0.16.1 calls by their old names.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    logging.getLogger("megatron.core").setLevel(logging.ERROR)
