"""The record of a run: defaults by size and method, refusals, JSON."""

import json

import pytest

import gated_bert
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.methods import METHODS
from gated_bert.presets import PRESETS


@pytest.mark.parametrize(
    "size, epsilon, frequency",
    [("tiny", 0.01, 100), ("small", 0.005, 200), ("base", 0.0025, 400), ("large", 0.001, 800)],
)
def test_defaults_follow_the_size(size, epsilon, frequency):
    config = GatedBertConfig(model_size=size)
    assert (config.spt_epsilon, config.movement_pruning_frequency_steps) == (epsilon, frequency)
    assert config.d_model == PRESETS[size].d_model


def test_the_default_method_is_spt_with_its_published_steps():
    config = GatedBertConfig()
    assert (config.pruning_method, config.criterion, config.scope, config.schedule) == ("spt", "spt", "global", "auto")


def test_an_explicit_sparsity_means_a_linear_schedule():
    assert GatedBertConfig(end_sparsity=0.9).schedule == "linear"
    assert GatedBertConfig(pruning_method="movement", movement_schedule="cubic", end_sparsity=0.9).schedule == "cubic"
    assert GatedBertConfig(sparsity_steps=(10, 20), end_sparsity=0.9).schedule == "steps"


@pytest.mark.parametrize(
    "options", [{"pruning_method": "none"}, {"enable_pruning": False}, {"pruning_method": "baseline"}]
)
def test_three_ways_to_say_baseline(options):
    config = GatedBertConfig(**options)
    assert (config.label, config.criterion, config.enable_pruning) == ("baseline", None, False)


@pytest.mark.parametrize("method", METHODS)
def test_a_record_survives_its_json(method, tmp_path):
    config = GatedBertConfig(pruning_method=method, model_size="tiny", sparsity_steps=(10, 20.5), seed=3)
    (tmp_path / "record.json").write_text(config.to_json())
    assert GatedBertConfig.from_json(config.to_json()) == GatedBertConfig.from_json(tmp_path / "record.json") == config


def test_labels_name_points_and_variants():
    def label(**options):
        return GatedBertConfig(**options).label

    assert label(pruning_method="magnitude") == "magnitude"
    assert label(pruning_method="magnitude", pattern="head", scope="global") == "magnitude-head-global-linear"
    assert label(spt_reward="taylor") == "spt-taylor"
    assert label(spt_variant="published") == "spt-published"
    assert label(spt_unit="neuron", spt_credit="regression") == "spt-regression-neuron-global-auto"


def test_published_spt_is_restored_as_a_whole():
    config = GatedBertConfig(spt_variant="published")
    assert (config.spt_unit, config.spt_reward, config.spt_credit) == ("element", "measured", "mean")
    with pytest.raises(
        ConfigError, match="spt_reward: 'taylor' is refused; allowed: measured, with spt_variant=published"
    ):
        GatedBertConfig(spt_variant="published", spt_reward="taylor")


REFUSED = [
    ({"pruning_method": "movment"}, "did you mean movement"),
    ({"model_size": "huge"}, "tiny, small, base, large"),
    ({"epochs": 0}, "a whole number from 1 up"),
    ({"epochs": 2.5}, "a whole number from 1 up"),
    ({"batch_size": True}, "a whole number from 1 up"),
    ({"learning_rate": 0.0}, "a number above 0 to 1"),
    ({"learning_rate": float("nan")}, "a number above 0 to 1"),
    ({"dropout_rate": 1.0}, "a number from 0 to 0.99"),
    ({"start_sparsity": -0.1}, "a number from 0 to 1"),
    ({"start_sparsity": 0.9, "end_sparsity": 0.5}, "at most end_sparsity=0.5"),
    ({"end_sparsity": 90}, "a number from 0 to 1"),
    ({"max_len": 4}, "a whole number from 8 to 512"),
    ({"task": "squad", "max_len": 64, "doc_stride": 64}, "a whole number from 1 to 63"),
    ({"n_best_size": 0}, "a whole number from 1 to 512"),
    ({"max_answer_length": 0}, "a whole number from 1 to 512"),
    ({"num_heads": 5, "model_size": "tiny"}, "a divisor of d_model=256"),
    ({"pruning_start_epoch": 24}, "1 to 23"),
    ({"pruning_method": "magnitude", "epochs": 3, "pruning_start_epoch": 4}, "1 to 3"),
    ({"sparsity_steps": (50, 20)}, "percentages from 0 to 100 that never fall"),
    ({"sparsity_steps": (50, 120)}, "percentages from 0 to 100 that never fall"),
    ({"sparsity_steps": tuple(range(30)), "epochs": 25}, "at most 22 values: epochs 4 to 25"),
    ({"schedule": "steps", "sparsity_steps": None}, "a list of percentages"),
    ({"prunable_roles": ("qurey",)}, "did you mean query"),
    ({"prunable_roles": ()}, "at least one of query"),
    ({"pruning_method": "l0", "pattern": "head"}, "element: l0 closes single weights by a threshold"),
    ({"spt_unit": "head", "pattern": "neuron"}, "the pattern that is pruned"),
    ({"spt_unit": "neuron", "spt_credit": "regression", "spt_reward": "taylor"}, "spt_reward measured"),
]


@pytest.mark.parametrize("options, allowed", REFUSED, ids=lambda value: str(value)[:40])
def test_a_refused_value_names_field_value_and_what_is_allowed(options, allowed):
    with pytest.raises(ConfigError) as caught:
        GatedBertConfig(**options)
    assert allowed in str(caught.value)
    assert caught.value.field in options and str(caught.value).count("\n") == 0


def test_an_unknown_field_is_named():
    with pytest.raises(ConfigError, match="epoch: 3 is refused; allowed: the known fields .did you mean epochs"):
        GatedBertConfig.from_dict({"epoch": 3})


def test_every_public_name_can_be_imported():
    assert all(getattr(gated_bert, name) is not None for name in gated_bert.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        _ = gated_bert.prune


def test_the_json_is_plain():
    assert json.loads(GatedBertConfig(model_size="tiny").to_json())["prunable_roles"][0] == "query"
