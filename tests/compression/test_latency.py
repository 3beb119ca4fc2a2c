"""Latency tables: of times that are known, what they predict; what is refused; real ones of a tiny model."""

import dataclasses
import json

import numpy as np
import pytest

from gated_bert.compression import latency_measure
from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.latency_measure import measure_table, sizes_to_measure
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.support.errors import UserError
from tests.known_times import know_times, known_time


@pytest.fixture(scope="module")
def model():
    return BertClassifier(BertConfig.uniform(3, 24, 4, 40, vocab_size=60, max_position=40))


def table_of(model, conditions=None, **more):
    told = []
    table = measure_table(model, conditions or Conditions(length=16), tell=told.append, **more)
    heads, neurons = sizes_to_measure(model.architecture)
    assert sum(told) == len({*heads, *neurons})
    return table


def shrunk(architecture, seed):
    rng = np.random.default_rng(seed)
    layers = []
    for _ in architecture.layers:
        heads = int(rng.integers(0, 5))
        layers.append(LayerSizes(heads, *((6, 6) if heads else (0, 0)), int(rng.integers(0, 41))))
    return architecture.replace(layers=tuple(layers))


def test_times_that_add_up_are_found_and_predicted(model, timed):
    table = table_of(model)
    assert table.outside == pytest.approx(2.0) and table.dense == pytest.approx(known_time(model.architecture))
    assert table.attention == pytest.approx({0: 0, 1: 0.8, 2: 1.3, 3: 1.8, 4: 2.3})
    assert table.ffn_ms(40) == pytest.approx(2.2) and table.ffn_ms(0) == 0
    for seed in range(10):
        sizes = shrunk(model.architecture, seed)
        # Between the widths that are measured, one is off by what being there costs at most.
        assert table.predict(sizes) == pytest.approx(known_time(sizes), abs=0.3)
    half = model.architecture.replace(layers=(LayerSizes(4, 3, 3, 40),) * 3)
    assert table.predict(half) == pytest.approx(2 + 3 * (1.3 + 2.2)), "heads of half the size count as half as many"


def test_a_part_that_is_there_costs_as_much_as_the_smallest_measured_one(model, timed):
    measured = table_of(model)
    table = dataclasses.replace(measured, ffn={0: 0.0, 18: 0.4, 40: 0.9}, attention={0: 0.0, 1: 0.3, 4: 0.9})
    assert table.ffn_ms(0) == 0 and table.attention_ms(0) == 0
    assert {table.ffn_ms(neurons) for neurons in (1, 2, 17, 18)} == {0.4} and 0.4 < table.ffn_ms(19) < 0.9
    assert {table.attention_ms(heads) for heads in (1 / 6, 0.5, 1)} == {0.3} and 0.3 < table.attention_ms(1.5) < 0.9


def test_noise_is_told_and_times_still_rise(model, timed):
    timed["noise"] = 0.4
    table = table_of(model, repeats=15)
    assert 0.1 < table.noise < 0.4
    for times in (table.attention, table.ffn):
        values = [times[size] for size in sorted(times)]
        assert values == sorted(values) and values[0] == 0
    timed["noise"] = 0.0
    assert table_of(model).noise == pytest.approx(0, abs=1e-9)


def test_parts_that_leave_nothing_for_the_rest_are_measured_again_and_refused(model, timed, monkeypatch):
    measured: list = []
    measure = latency_measure._Timing.measure
    monkeypatch.setattr(latency_measure._Timing, "measure",
                        lambda self, sizes: measured.append(list(sizes)) or measure(self, sizes))  # fmt: skip
    # Heads alone and neurons alone take next to nothing, and both together much.
    timed["time"] = lambda architecture: 0.1 + sum(each.num_heads * each.intermediate_size + 0.001 * each.num_heads
                                                   for each in architecture.layers)  # fmt: skip
    with pytest.raises(UserError, match=r"leave nothing for the rest \(.*busy; .*--table"):
        table_of(model)
    again = measured[-latency_measure.TRIES + 1 :]
    assert again[0] == again[1] and len(again[0]) == 3


def test_a_larger_part_that_is_faster_is_refused(model, timed):
    def odd(architecture):
        return known_time(architecture) - 3 * sum(layer.num_heads == 3 for layer in architecture.layers)

    timed["time"] = odd
    with pytest.raises(UserError, match=r"do not rise with the size \(.*3 heads.*busy"):
        table_of(model)


def test_layers_that_are_not_alike_are_refused(model):
    uneven = BertClassifier(shrunk(model.architecture, 3))
    with pytest.raises(UserError, match="layers of different sizes"):
        table_of(uneven)


def test_a_table_is_kept_and_is_of_its_model(model, timed, tmp_path):
    table = table_of(model)
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == table
    # What a newer version has written beside it is no fault.
    values = json.loads((tmp_path / "t.json").read_text())
    values |= {"later": 1, "conditions": values["conditions"] | {"later": 2}}
    (tmp_path / "t.json").write_text(json.dumps(values))
    assert LatencyTable.load(tmp_path / "t.json") == table
    with pytest.raises(UserError, match="is of 3 layers of 24, and the model of 2 of 24"):
        table.predict(BertConfig.uniform(2, 24, 4, 40, vocab_size=60, max_position=40))
    with pytest.raises(UserError, match="goes from 0 to 40, and the model has 41"):
        table.predict(BertConfig.uniform(3, 24, 4, 41, vocab_size=60, max_position=40))


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "t.json"
    with pytest.MonkeyPatch.context() as patches:
        know_times(patches)
        table_of(model).save(path)
    return json.loads(path.read_text())


@pytest.mark.parametrize("fault", ["{", "[]", {"ffn": []}, {"dense": "x"}, {"outside": None}, {"hidden_size": 1.5},
                                   {"attention": [{"heads": 1, "ms": 2.0}, {"heads": 2, "ms": 1.0}]},
                                   {"conditions": {"batch": 1}}, {"dense": 0.0}, {"outside": -1.0},
                                   {"conditions": {"batch": 1, "length": 16, "threads": 1, "runtime": "tpu",
                                                   "precision": "fp32", "graph": "fused"}}])  # fmt: skip
def test_what_is_no_table_is_refused_in_one_line(written, tmp_path, fault):
    path = tmp_path / "t.json"
    path.write_text(fault if isinstance(fault, str) else json.dumps(written | fault))
    with pytest.raises(UserError) as refused:
        LatencyTable.load(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("conditions", [
    Conditions(length=8), Conditions(length=8, precision="int8"), Conditions(2, 8, runtime="keras"),
], ids=str)  # fmt: skip
@pytest.mark.daily_every(3)
def test_a_real_model_is_measured(conditions, monkeypatch):
    pytest.importorskip("onnxruntime")
    # Whatever else the machine does.
    monkeypatch.setattr(latency_measure, "NOISE", 1.0)
    model = BertClassifier(BertConfig.uniform(2, 64, 2, 256, vocab_size=60, max_position=40))
    table = table_of(model, conditions, repeats=15)
    assert table.conditions == conditions and table.dense > 0 and table.noise > 0
    for times in (table.attention, table.ffn):
        values = list(times.values())
        assert values == sorted(values) and values[0] == 0 < values[-1]
