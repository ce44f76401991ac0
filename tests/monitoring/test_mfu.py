"""Peaks by the names that devices give themselves, and the ratio."""

import pytest

from engine.monitoring.mfu import model_flops_utilisation, peak_flops


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
