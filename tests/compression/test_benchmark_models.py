"""What a benchmark compares: fronts by hand, ratios, which data judges, one model's metric."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from gated_bert.compression.benchmark import judge, pareto_front, read_judged
from gated_bert.experiments.models.benchmark_table import with_ratios, write_plot
from gated_bert.experiments.studies.compress_report import report_rows
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_json_atomic
from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import randomize
from tests.pictures import is_drawn

FULL_SCALE = True


def test_a_model_whose_metric_is_no_number_hides_no_other(tmp_path):
    """As after 16 bits overflow; in the record of a benchmark it is null."""
    row = {"metric": "accuracy", "value": 0.9, "p50_ms_b1_l8": 2.0, "p95_ms_b1_l8": 3.0, "path": "models/base"}
    rows = [{"model": "base", **row}, {"model": "fp16", **row, "value": math.nan, "path": "models/fp16/base.onnx"}]
    about = {"threads": 1, "repeats": 1, "data": "embedded data", "lengths": [8]}
    for order in (rows, rows[::-1]):
        assert is_drawn(write_plot(tmp_path / "plot.png", order, [(1, 8)], about))
    assert pareto_front([1, 1, 2], [math.nan, 0.5, 0.6]) == [1, 2]
    write_json_atomic(tmp_path / "record.json", {"models": rows})
    read = json.loads((tmp_path / "record.json").read_text())["models"]
    found = report_rows(read, Path("models"))
    assert [row["metric_change"] for row in found] == pytest.approx([0.0, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("costs", "values", "front"),
    [
        ([3, 1, 2], [0.9, 0.7, 0.8], [1, 2, 0]),
        ([3, 1, 2], [0.8, 0.7, 0.8], [1, 2]),
        ([1, 2, 3], [0.9, 0.8, 0.9], [0]),
        ([1, 1, 2], [0.7, 0.8, 0.8], [1]),
        ([5], [0.1], [0]),
    ],
)
def test_the_front_holds_what_nothing_beats(costs, values, front):
    assert pareto_front(costs, values) == front


def test_ratios_are_to_the_first_model():
    rows = [{"model": "a", "parameters": 8, "p50_ms_b1_l8": 2.0, "value": 0.5, "macs_per_token": None},
            {"model": "b", "parameters": 2, "p50_ms_b1_l8": 3.0, "value": 0.4, "macs_per_token": 7}]  # fmt: skip
    assert with_ratios(rows)[1] == {**rows[1], "parameters_ratio": 0.25, "p50_ms_b1_l8_ratio": 1.5}


@pytest.fixture
def news(make_model):
    task, tokenizer = TASKS["ag_news"], Tokenizer.from_vocab(embedded_vocabulary())
    config = make_model(num_outputs=4).bert_config.replace(vocab_size=tokenizer.vocab_size, max_position=64)
    model = type(make_model())(config)
    randomize(model, 0)
    return LoadedModel(model, tokenizer, task, config, {})


def test_the_test_set_judges_where_there_is_one(news):
    judged = read_judged({"a": news, "b": news}, "embedded")
    assert judged.task.dev_splits == ("test",) and judged.label == "embedded data, test"
    assert read_judged({"a": news}, "embedded", "validation").task.dev_splits == ("validation",)
    other = dataclasses.replace(news, task=TASKS["sst2"])
    assert read_judged({"a": other}, "embedded").task.dev_splits == ("dev",)
    with pytest.raises(UserError, match="a is of task ag_news .* and b of sst2 .*; models are judged on the same data"):
        read_judged({"a": news, "b": other}, "embedded")
    own = dataclasses.replace(news, task=dataclasses.replace(news.task, name="mine"))
    with pytest.raises(UserError, match="-d/--data: 'embedded' is refused; allowed: a file, .* of task mine"):
        read_judged({"a": own}, "embedded")


def test_a_models_metric_is_that_of_all_its_examples(news):
    judged = read_judged({"a": news}, "embedded")
    found = judge(news, judged)
    encoded = news.tokenizer.encode(judged.examples.texts, None, 64)
    right = 0
    for row, label in enumerate(judged.examples.labels[:100]):
        right += int(news.model.predict_on_batch({"input_ids": encoded.row(row)[None]}).argmax() == label)
    part = dataclasses.replace(judged, examples=judged.examples.take(range(100)))
    assert judge(news, part)["value"] == right / 100
    assert found["metric"] == "accuracy" and found["instances"] == len(judged.examples) == 800
    assert found["seconds_per_instance"] > 0
