"""A file of weights refuses, before it is made, what it cannot hold."""

from __future__ import annotations

import pytest
import torch

from engine.weights.safetensors_file import Described, SafetensorsWriter


def test_a_dtype_of_no_weight_is_refused_by_name_and_no_file_is_made(tmp_path):
    file = tmp_path / "model.safetensors"
    tensors = {"a": Described(torch.float32, (2,)), "b": Described(torch.int8, (2,))}
    with pytest.raises(ValueError, match=r"b is torch\.int8; expected one of \[torch\.float32"):
        SafetensorsWriter(file, tensors)
    assert not file.exists()
