"""A model with a scalar head computes what transformers' sequence classification does.

Ours sees all samples packed into one row, transformers one sample at a time.
"""

from __future__ import annotations

import pytest
from run_program import run_program
from small_models import CLASSIFIERS, MODELS

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.models.memory import training_memory
from engine.models.sequence_classifier import as_sequence_classifier, is_sequence_classifier
from engine.weights.tensor_maps import maps_of


@pytest.fixture(scope="module")
def found():
    return run_program("sequence_classification")


@pytest.mark.slow
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_values_of_a_packed_row_equal_each_samples_own(found, model):
    assert found[model]["spread"] > 0.1  # a constant would be easy to meet
    assert found[model]["values"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_every_gradient_equals_theirs(found, model):
    distances, sizes = found[model]["gradients"], found[model]["sizes"]
    idle = [name for name, size in sizes.items() if size == 0 and ".experts." not in name]
    assert not idle and sizes["score.weight"] > 0.1
    assert {name: far for name, far in distances.items() if not far < 5e-6} == {}


@pytest.mark.slow
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_a_checkpoint_comes_back_bit_for_bit_under_the_same_names(found, model):
    for difference in ("not in ours", "not in theirs", "changed"):
        assert found[model][difference] == []


@pytest.mark.parametrize(
    ("model", "name"),
    [("qwen3_moe", "Qwen3Moe"), ("deepseek_v3, plain rope", "DeepseekV3"), ("qwen2", "Qwen2")],
)
def test_the_architecture_is_named_as_transformers_names_it(model, name):
    classifier = as_sequence_classifier(MODELS[model])
    assert classifier["architectures"] == [f"{name}ForSequenceClassification"]
    named = {**MODELS[model], "architectures": [f"{name}ForCausalLM"]}
    assert as_sequence_classifier(named)["architectures"] == classifier["architectures"]
    assert as_sequence_classifier(classifier) == classifier


@pytest.mark.parametrize("model", MODELS)
def test_a_classifier_has_the_trunk_and_one_layer_more(model):
    config = {**MODELS[model], "num_nextn_predict_layers": 0}
    trunk = {name for m in maps_of(config).values() for name in m.names} - {"lm_head.weight"}
    for depths in (0, 1):  # a prediction head stays behind
        classifier = as_sequence_classifier({**config, "num_nextn_predict_layers": depths})
        names = {name for m in maps_of(classifier).values() for name in m.names}
        assert names == trunk | {"score.weight"}


def test_no_memory_is_counted_for_an_output_layer():
    layout, training = (
        LayoutConfig(processes=1),
        TrainingConfig(dtype="bfloat16", tokens_per_microbatch=64),
    )
    model = MODELS["qwen2"]
    language, scalar = (
        training_memory(config, layout, training, 64)
        for config in (model, as_sequence_classifier(model))
    )
    assert scalar.output_layer == 0 < language.output_layer
    weights = (model["vocab_size"] - 1) * model["hidden_size"]
    assert language.parameters - scalar.parameters == 2 * weights


def test_another_number_of_labels_than_one_is_refused():
    classifier = {"architectures": ["Qwen2ForSequenceClassification"]}
    with pytest.raises(RunError, match=r"2 labels \(id2label\), expected 1"):
        is_sequence_classifier(classifier)
    with pytest.raises(RunError, match=r"3 labels"):
        is_sequence_classifier({**classifier, "id2label": {"0": "a", "1": "b", "2": "c"}})
    assert is_sequence_classifier({**classifier, "id2label": {"0": "LABEL_0"}})
    assert is_sequence_classifier({**classifier, "num_labels": 1})
    assert not is_sequence_classifier({"architectures": ["Qwen2ForCausalLM"]})
    assert not is_sequence_classifier({"architectures": None})
