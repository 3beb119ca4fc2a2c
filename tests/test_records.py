"""Records from files: every fault of decoding or type is one sentence with file, place and what is allowed."""

import json

import numpy as np
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.support.records import parse_record, read_record
from gated_bert.support.schemas import (
    ExplainedDocument,
    HowMade,
    HuggingFaceConfig,
    InputsOfRun,
    JobStatus,
    ModelConfig,
    RunMetadata,
)
from gated_bert.tasks.task import TASKS, get_task
from tests.experiments.synthetic_runs import write_run
from tests.refused import refusal

BROKEN = {
    b"": "an empty file",
    b" \n": "an empty file",
    b"null": "holds null; allowed: an object",
    b"[1]": "holds a list; allowed: an object",
    b'"x"': "holds a text; allowed: an object",
    b'{"a": 1': "line 1: malformed JSON",
    b'{\n"a":\n}': "line 3: malformed JSON (Expecting value)",
    b'{"a": 1, "a": 2}': "'a' is there twice in one object",
    b'{"x": [{"": 1, "": 1}]}': "'' is there twice in one object",
    b'{"a": NaN}': "NaN is no number of JSON",
    b'{"a": -Infinity}': "-Infinity is no number of JSON",
    b'{"a": 1e999}': "1e999 is beyond the largest number",
    b'{"a": ' + b"1" * 5000 + b"}": "a number of 5,000 digits; allowed: at most 40",
    b'{"a": ' + b"[" * 100_000: "nested more than 100 levels deep",
    b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}": "nested more than 100 levels deep",
    '{"a": "é"}'.encode("latin-1"): "line 1: not UTF-8 text",
    '{"a": 1}'.encode("utf-16"): "line 1: not UTF-8 text",
    b'{\n"a": "\\ud800"}': r"line 2: \ud800 is half of a character",
    b'{"a": ["\\udc00\\ud800"]}': r"\udc00 is half of a character",
}


@pytest.mark.parametrize("content", BROKEN)
def test_what_is_no_record_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_record(path, remedy="fetch it again")
    message = str(error.value)
    assert message.startswith(str(path)) and BROKEN[content] in message and len(message.splitlines()) == 1
    assert read_record(path, tolerant=True) is None


def test_what_is_a_record_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.json"
    values = {"a": [1, 1.5, None, True, "\N{GRINNING FACE}\\ud800"], "b": {"": {"c": []}}}
    for encoding, text in (("utf-8", json.dumps(values)), ("utf-8-sig", json.dumps(values, ensure_ascii=False))):
        path.write_text(text, encoding=encoding)
        assert read_record(path) == values
    assert np.isnan(parse_record('{"loss": NaN}', JobStatus, where="a", nan=True)["loss"])


def test_names_of_files_that_are_not_utf_8_are_taken_but_not_in_texts(tmp_path):
    path = tmp_path / "a.json"
    name = b"r\xe9sultats".decode("utf-8", "surrogateescape")
    path.write_text(json.dumps({"config": {"data": name, name: 1}, "label": name}))
    assert read_record(path, RunMetadata)["config"] == {"data": name, name: 1}
    with pytest.raises(UserError, match=r"line 1: \\udce9 is half of a character"):
        read_record(path, RunMetadata, file_names=False)
    path.write_text(json.dumps({"data": name, "task": "\ud800"}))
    with pytest.raises(UserError, match=r"line 1: \\ud800 is half of a character"):
        read_record(path, RunMetadata)
    for text in ('{"\\udcff": 1}', '["\\udce9"]', '{"seed": "\\udce9"}'):
        with pytest.raises(UserError):
            parse_record(text, JobStatus, where="a", file_names=False)
    assert parse_record('{"\\udcff": 1}', JobStatus, where="a") == {"\udcff": 1}
    with pytest.raises(UserError, match="seed is a text; allowed: a whole number"):
        parse_record('{"seed": "\\udce9"}', JobStatus, where="a")


@pytest.mark.parametrize("make", ["mkdir", "symlink_to_itself", "nothing"])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    path = tmp_path / "a.json"
    {"mkdir": path.mkdir, "symlink_to_itself": lambda: path.symlink_to(path), "nothing": lambda: None}[make]()
    with pytest.raises(UserError, match="a.json: "):
        read_record(path)
    assert read_record(path, tolerant=True) is None


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (ModelConfig, {"task": {}}, "no field 'architecture'"),
        (ModelConfig, {"task": {}, "architecture": []}, "architecture is a list; allowed: an object"),
        (JobStatus, {"epoch": "1"}, "epoch is a text; allowed: a whole number"),
        (JobStatus, {"epoch": True}, "epoch is true or false; allowed: a whole number"),
        (RunMetadata, {"macs_per_token": {"dense": {"total": 1, "per_layer": ["x"]}}}, "allowed: a number"),
        (HuggingFaceConfig, {"id2label": {"0": None}}, "id2label[…] is null; allowed: a text"),
        (HuggingFaceConfig, {"hidden_size": 1.5}, "hidden_size is a number; allowed: a whole number"),
        (ExplainedDocument, {}, "no field 'document'"),
    ],
)
def test_types_are_those_of_the_schema_and_more_fields_may_stand_beside(schema, values, message):
    with pytest.raises(UserError) as error:
        parse_record(json.dumps(values), schema, where="a.json")
    assert message in str(error.value)
    assert parse_record('{"state": "x", "newer": [1]}', JobStatus, where="a")["newer"] == [1]


@pytest.mark.parametrize("field", sorted(InputsOfRun.__annotations__))
@pytest.mark.parametrize("value", [1.5, True, [], {}, ["text"]])
def test_what_later_inputs_take_from_a_model_has_a_type(field, value):
    with pytest.raises(UserError, match=f"config.{field} is "):
        parse_record(json.dumps({"config": {field: value}}), HowMade, where="metadata.json")
    assert parse_record(json.dumps({"config": {field: None, "other": value}}), HowMade, where="a")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("jit_compile", "maybe", "true or false"),
        ("gate_trainable", 1, "true or false"),
        ("enable_pruning", None, "true or false"),
        ("epochs", 3.0, "a whole number"),
        ("epochs", True, "a whole number"),
        ("learning_rate", "2e-5", "a number"),
        ("clip_norm", [], "a number or null"),
        ("pretrained", 5, "a text or null"),
        ("block_size", [32], "a list of length 2"),
        ("block_size", "32", "a list"),
        ("prunable_roles", "query", "a list"),
        ("sparsity_steps", ["x"], "a list, each a number"),
        ("devices", 1.5, "a whole number or a text"),
    ],
)
def test_a_run_takes_no_value_of_another_type(tmp_path, capsys, field, value, allowed):
    with pytest.raises(ConfigError) as error:
        GatedBertConfig.from_dict({field: value})
    assert (error.value.field, error.value.value) == (field, value) and allowed in error.value.allowed
    path = tmp_path / "job.json"
    path.write_text(json.dumps({field: value}))
    message = refusal(capsys, "train", "--config-file", str(path))
    assert f"{value!r} is refused; allowed: {allowed}" in message


def test_every_record_that_a_run_writes_today_is_read(tmp_path):
    folder = write_run(tmp_path)
    (path,) = folder.glob("metadata_*.json")
    assert read_record(path, RunMetadata)["config"]["model_size"] == "tiny"
    config = GatedBertConfig(model_size="tiny", sparsity_steps=(10, 20.5), block_size=(8, 4), clip_norm=None)
    assert GatedBertConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("field", ["model_size", "criterion", "optimizer", "schedule", "task", "x" * 100_000, "epochs"])
def test_values_of_any_length_are_refused_at_once_and_cut(field):
    with pytest.raises(ConfigError) as error:
        check = GatedBertConfig.from_dict({field: "y" * 100_000})
        assert check.task not in TASKS
        get_task(check.task)
    assert len(str(error.value)) < 1500
