"""Peaks by the names that devices give themselves, and the ratio."""

import pytest

from engine.monitoring.mfu import (
    Devices,
    StepWork,
    gpu_metrics,
    model_flops_utilisation,
    peak_flops,
)


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 80GB HBM3", "fp8", 1979e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "fp8", 1979e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "fp8", None),
        ("NVIDIA H100 80GB HBM3", "float32", None),
        ("NVIDIA H100 NVL", "bfloat16", None),
        ("NVIDIA GeForce RTX 4090", "bfloat16", None),
        ("cpu", "bfloat16", None),
    ],
)
def test_a_device_is_known_by_its_name(device, precision, peak):
    assert peak_flops(device, precision) == peak


def test_half_the_peak_of_two_gpus_is_one_half():
    found = model_flops_utilisation(989e12 * 3, 3.0, 2, "NVIDIA H200", "bfloat16")
    assert found == pytest.approx(0.5)


def test_an_unknown_device_has_no_utilisation():
    assert model_flops_utilisation(1e15, 1.0, 1, "cpu", "bfloat16") is None


WORK = StepWork(tokens=6000, training_flops=3e15, scoring_flops=2e15)


def test_a_step_on_two_gpus():
    found = gpu_metrics(WORK, 3.0, 20.0, Devices("NVIDIA H100 80GB HBM3", 2, "bfloat16"))
    assert found == pytest.approx(
        {
            "speed/trained_tokens_per_second_per_gpu": 1000.0,
            "speed/mfu_update": 3e15 / 3 / 2 / 989e12,
            "speed/mfu_step": 5e15 / 20 / 2 / 989e12,
        }
    )


def test_fp8_is_measured_against_its_own_peak():
    found = [
        gpu_metrics(WORK, 3.0, 20.0, Devices("NVIDIA H200", 1, precision))["speed/mfu_update"]
        for precision in ("bfloat16", "fp8")
    ]
    assert found[0] / found[1] == pytest.approx(1979 / 989)


@pytest.mark.parametrize(
    "devices",
    [
        Devices("NVIDIA H100 NVL", 1, "bfloat16"),
        Devices("NVIDIA H100 80GB HBM3", 1, "float32"),
    ],
)
def test_an_unknown_peak_leaves_utilisation_out(devices):
    assert set(gpu_metrics(WORK, 3.0, 20.0, devices)) == {"speed/trained_tokens_per_second_per_gpu"}


def test_without_a_gpu_nothing_is_said():
    assert gpu_metrics(WORK, 3.0, 20.0, Devices("cpu", 2, "bfloat16")) == {}
