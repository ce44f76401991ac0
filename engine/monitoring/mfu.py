"""Model FLOPs utilisation: the share of a GPU's peak that a model's own arithmetic makes up.

PaLM, arXiv 2204.02311, appendix B. What counts as the model's own is in engine/models/flops.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.monitoring import metric_names as names

PEAK_FLOPS: Mapping[str, Mapping[str, float]] = {
    # NVIDIA H100 Tensor Core GPU datasheet; the H200's has the same numbers for the same chip.
    "H100 PCIe": {"bfloat16": 756e12, "fp8": 1513e12},
    "H100": {"bfloat16": 989e12, "fp8": 1979e12},
    "H200": {"bfloat16": 989e12, "fp8": 1979e12},
    # NVIDIA A100 Tensor Core GPU datasheet; it has no FP8.
    "A100": {"bfloat16": 312e12},
}
"""Words of a device's name -> precision of the matrix products -> FLOP/s, dense: half of what a
datasheet gives "with sparsity". "H100" is the SXM module. The first entry that fits holds."""

NO_GPU = "cpu"
"""The name of a device that is none."""

_OTHER_CLOCKS = ("NVL", "GH200")  # their peaks differ and are not listed


def peak_flops(device: str, precision: str) -> float | None:
    """Peak FLOP/s of one GPU, None where it is not known.

    Args:
        device: as ``torch.cuda.get_device_name()`` gives it, "NVIDIA H100 80GB HBM3".
        precision: "bfloat16" or "fp8", of the matrix products.
    """
    words = set(device.replace("-", " ").split())
    if words & set(_OTHER_CLOCKS):
        return None
    for name, peaks in PEAK_FLOPS.items():
        if set(name.split()) <= words:
            return peaks.get(precision)
    return None


def model_flops_utilisation(
    flops: float, seconds: float, devices: int, device: str, precision: str
) -> float | None:
    """MFU in [0, 1], None where the device's peak is not known.

    Args:
        flops: of the whole model over all samples, recomputation not counted.
        seconds: wall time of all of it.
        devices: GPUs that shared it.
        device: see :func:`peak_flops`; all are alike.
        precision: see :func:`peak_flops`. FP8 runs are measured against FP8's peak, although some
            of their products stay in bfloat16.
    """
    peak = peak_flops(device, precision)
    return None if peak is None else flops / (seconds * devices * peak)


@dataclass(frozen=True)
class Devices:
    """What a policy trains on: ``count`` GPUs that are all alike.

    ``name`` and ``precision`` are as :func:`peak_flops` takes them; float32 has no peak there.
    """

    name: str
    count: int
    precision: str


@dataclass(frozen=True)
class StepWork:
    """What one step of reinforcement learning asks of the policy's GPUs, of all of them together.

    Attributes:
        tokens: positions trained on, prompts included.
        training_flops: of the forward and backward passes of the updates.
        scoring_flops: of the forward passes before them, which give the old and the reference
            log-probabilities.
    """

    tokens: int
    training_flops: float
    scoring_flops: float


def gpu_metrics(
    work: StepWork, update_seconds: float, step_seconds: float, devices: Devices
) -> dict[str, float]:
    """How well a step used its GPUs, by metric name.

    What cannot be known is absent: everything without a GPU, utilisation where the device's peak in
    this precision is not known.

    Args:
        update_seconds: of the updates alone.
        step_seconds: of the whole step, waiting for samples included.
    """
    if devices.name == NO_GPU:
        return {}
    everything = work.training_flops + work.scoring_flops
    found = {
        names.TRAINED_TOKENS_PER_GPU: work.tokens / update_seconds / devices.count,
        names.MFU_UPDATE: _utilisation(work.training_flops, update_seconds, devices),
        names.MFU_STEP: _utilisation(everything, step_seconds, devices),
    }
    return {name: value for name, value in found.items() if value is not None}


def _utilisation(flops: float, seconds: float, devices: Devices) -> float | None:
    return model_flops_utilisation(flops, seconds, devices.count, devices.name, devices.precision)
