"""The record of a run: defaults by size and method, refusals, JSON."""

import dataclasses
import json
import pickle
import random

import pytest

import gated_bert
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.methods import METHODS
from gated_bert.config.model_options import ModelOptions
from gated_bert.config.presets import PRESETS


@pytest.mark.parametrize(
    "size, epsilon, frequency, rate",
    [("tiny", 0.01, 100, 5e-4), ("small", 0.005, 200, 5e-4), ("base", 0.0025, 400, 1e-4), ("large", 0.001, 800, 1e-4)],
)
def test_defaults_follow_the_size(size, epsilon, frequency, rate):
    config, published = GatedBertConfig(model_size=size), GatedBertConfig(model_size=size, recipe="published-spt")
    assert config.spt_epsilon == epsilon
    assert (config.movement_pruning_frequency_steps, published.movement_pruning_frequency_steps) == (10, frequency)
    assert (config.learning_rate, config.replace(pretrained="some/bert").learning_rate) == (rate, 2e-5)
    assert config.d_model == PRESETS[size].d_model


def test_the_usual_method_is_magnitude_or_spt_where_its_fields_say_how():
    config = GatedBertConfig()
    assert (config.pruning_method, config.criterion, config.scope) == ("magnitude", "magnitude", "layer")
    for options in ({"spt_reward": "taylor"}, {"spt_epsilon": 0.1}, {"recipe": "published-spt"}):
        config = GatedBertConfig(**options)
        assert (config.pruning_method, config.criterion, config.scope) == ("spt", "spt", "global")
        assert GatedBertConfig.from_json(config.to_json()).replace(seed=3) == config.replace(seed=3)
    assert GatedBertConfig(spt_reward="taylor", criterion="movement").criterion == "movement"
    sweep = GatedBertConfig(pruning_method="magnitude", spt_reward="taylor")
    assert GatedBertConfig.from_json(sweep.to_json()).replace(seed=3).criterion == sweep.criterion == "magnitude"
    assert GatedBertConfig(pruning_method="spt").schedule == "auto"


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
    ({"epochs": 2.5}, "a whole number from 0 up"),
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


VALUES = {
    "model_size": tuple(PRESETS),
    "pruning_method": ("magnitude", "movement", "spt", "taylor", "l0", "baseline", "none", "LayerGradCAM", "random"),
    "criterion": (None, "magnitude", "movement", "spt", "grad_cam"),
    "enable_pruning": (True, False),
    "num_layers": (None, 1, 12),
    "d_model": (None, 64, 768),
    "pretrained": (None, "bert-base-uncased"),
    "task": ("sst2", "squad"),
    "max_len": (None, 64, 128, 384),
    "doc_stride": (None, 40),
    "pattern": (None, "element", "head", "neuron", "tile"),
    "spt_unit": (None, "element", "head", "neuron"),
    "scope": (None, "layer", "global"),
    "schedule": (None, "linear", "auto", "one_shot", "steps"),
    "movement_schedule": ("linear", "cubic"),
    "start_sparsity": (None, 0.0, 0.1),
    "end_sparsity": (None, 0.5, 0.99),
    "sparsity_steps": (None, "auto", (10, 50), [10.0, 50.0]),
    "pruning_type": (None, 0, 2, 8),
    "spt_variant": ("default", "published"),
    "spt_epsilon": (None, 0.01),
    "movement_pruning_frequency_steps": (None, 7),
    "pruning_start_epoch": (1, 4),
    "epochs": (8, 25),
}


def made(make, **values):
    """The record, or the words that refuse it."""
    try:
        return make(**values)
    except ConfigError as error:
        return str(error)


def drawn(rng):
    return {name: rng.choice(VALUES[name]) for name in rng.sample(sorted(VALUES), rng.randint(0, 7))}


@pytest.mark.nightly
def test_what_is_replaced_could_have_been_given_at_once():
    """`Config(**a).replace(**b)` is `Config(**{**a, **b})`, refusals included, also in several steps."""
    rng, compared = random.Random(7), 0
    for _ in range(4000):
        first, *others = (drawn(rng) for _ in range(3))
        record, together = made(GatedBertConfig, **first), dict(first)
        for changes in others:
            if isinstance(record, str):
                break
            together |= changes
            record = made(record.replace, **changes)
            assert record == made(GatedBertConfig, **together)
            compared += not isinstance(record, str) and bool(changes)
    assert compared > 800


def test_a_written_record_fills_in_anew_what_was_filled_in():
    """Read again, copied or sent to another process, a record is replaced as the one that was made is."""
    rng, compared = random.Random(8), 0
    for _ in range(500):
        record, changes = made(GatedBertConfig, **drawn(rng)), {}
        if isinstance(record, str):
            continue
        for name in ("model_size", "pruning_method"):
            changes[name] = rng.choice(VALUES[name])
        read, sent = GatedBertConfig.from_json(record.to_json()), pickle.loads(pickle.dumps(record))
        assert read == sent == record and hash(read) == hash(record)
        assert made(sent.replace, **changes) == made(record.replace, **changes)
        back = {name: getattr(record, name) for name in changes}
        assert read.replace() == record == read.replace(**back)
        there = made(read.replace, **changes)
        if not isinstance(there, str):
            # There and back again nothing of what was passed on the way is left.
            assert made(there.replace, **back) == record
            compared += 1
    assert compared > 100


def test_nothing_of_another_size_or_method_stays():
    record = GatedBertConfig(model_size="tiny", pruning_method="movement", end_sparsity=0.9)
    for each in (record, GatedBertConfig.from_json(record.to_json())):
        large = each.replace(model_size="large")
        assert (large.d_model, large.spt_epsilon, large.learning_rate) == (1024, 0.001, 1e-4)
        spt = each.replace(pruning_method="spt", end_sparsity=None)
        assert (spt.criterion, spt.scope, spt.schedule, spt.label) == ("spt", "global", "auto", "spt")
        assert each.replace(pruning_method="baseline").replace(pruning_method="movement") == record
    own = GatedBertConfig(model_size="tiny", num_layers=1)
    assert own.replace(model_size="base").num_layers == 1
    with pytest.raises(ConfigError, match="epoch: 3 is refused; allowed: the known fields .did you mean epochs"):
        record.replace(epoch=3)


def test_how_a_record_was_made_is_not_written():
    given, filled = GatedBertConfig(model_size="tiny", d_model=256), GatedBertConfig(model_size="tiny")
    assert given == filled and given.to_json() == filled.to_json()
    assert dataclasses.asdict(given).keys() == json.loads(given.to_json()).keys()


def test_the_json_is_plain():
    assert json.loads(GatedBertConfig(model_size="tiny").to_json())["prunable_roles"][0] == "query"


def test_sizes_are_taken_by_both_of_their_names():
    config = GatedBertConfig(model_size="tiny", hidden_size=64, num_heads=4, intermediate_size=96)
    assert config == GatedBertConfig(model_size="tiny", d_model=64, num_heads=4, dff=96)
    assert config.replace(hidden_size=32) == config.replace(d_model=32) == config.replace(hidden_size=32, d_model=32)
    assert GatedBertConfig.from_dict({"model_size": "tiny", "intermediate_size": 96}).dff == 96
    assert ModelOptions(hidden_size=8) == ModelOptions(d_model=8)
    assert not {"hidden_size", "intermediate_size"} & json.loads(config.to_json()).keys()


@pytest.mark.parametrize(
    "make", [GatedBertConfig, GatedBertConfig().replace, lambda **values: GatedBertConfig.from_dict(values)]
)
def test_two_values_for_one_size_are_refused(make):
    with pytest.raises(ConfigError, match=r"^intermediate_size: 96 is refused; allowed: dff=64, which is the same$"):
        make(dff=64, intermediate_size=96)
    with pytest.raises(ConfigError, match=r"^hidden_size: 'wide' is refused|^d_model: 'wide' is refused"):
        make(hidden_size="wide")
