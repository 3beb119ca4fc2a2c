"""What is written of work that ends: finished, stopped, failed; and whether two records are the same."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gated_bert.config import NOT_COMPUTED, GatedBertConfig
from gated_bert.experiments.explanations.explanation_folder import RECORD, making
from gated_bert.experiments.runs.lifecycle import lifecycle
from gated_bert.experiments.runs.same_record import changes, computed, config_changes, refuse_other_config
from gated_bert.support.errors import UserError


def written(error=None):
    """States and messages of work that ends with an error, or well."""
    found = []
    with lifecycle(lambda *each: found.append(each), lambda: "stopped; 1 of 2") as work:
        if error is not None:
            raise error
        work.reached = "all of it"
    return found


def test_work_says_how_it_ended():
    assert written() == [("finished", "all of it")]
    with pytest.raises(KeyboardInterrupt, match="stopped; 1 of 2"):
        written(KeyboardInterrupt())


@pytest.mark.parametrize("error", [UserError("no such\nfile"), SystemExit(3), MemoryError("too much")])
def test_whatever_goes_wrong_is_written_in_one_line_and_raised(error):
    found = []
    with pytest.raises(type(error)) as raised, lifecycle(lambda *each: found.append(each), str, found.append):
        raise error
    assert raised.value is error and found[1] is error
    assert found[0] == ("failed", f"{type(error).__name__}: {error}".splitlines()[0])


def record_of(folder):
    return json.loads((folder / RECORD).read_text())


def test_explanations_say_that_they_are_begun_stopped_failed_and_whole(tmp_path):
    about = {"kind": "words", "documents": (1, 2)}
    with making(tmp_path, about, False, str):
        assert record_of(tmp_path) == {"kind": "words", "documents": [1, 2], "complete": False, "state": "running"}
    assert record_of(tmp_path)["complete"] and record_of(tmp_path)["state"] == "finished"
    with pytest.raises(UserError, match="holds explanations already"), making(tmp_path, about, False, str):
        pass
    with pytest.raises(UserError, match=r"was begun with documents \[1, 2\], not \[1, 3\]"):
        with making(tmp_path, about | {"documents": (1, 3)}, True, str):
            pass
    whole = record_of(tmp_path)
    with pytest.raises(UserError, match="another model"), making(tmp_path, about, True, str):
        raise UserError("another model")
    assert record_of(tmp_path) == whole, "what is whole is as whole when nothing was added"


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt(), "stopped"), (UserError("no room"), "failed")])
def test_what_is_not_whole_says_why_and_goes_on(tmp_path, error, state):
    about = {"kind": "tokens"}
    with pytest.raises(type(error)), making(tmp_path, about, False, lambda: "stopped; 3 are there"):
        raise error
    found = record_of(tmp_path)
    assert (found["complete"], found["state"]) == (False, state)
    assert found["message"] == ("stopped; 3 are there" if state == "stopped" else "UserError: no room")
    with making(tmp_path, about, True, str):
        pass
    assert record_of(tmp_path) == {"kind": "tokens", "complete": True, "state": "finished"}


def test_records_are_the_same_whatever_json_makes_of_them():
    assert changes({"a": [1, 2], "b": None}, {"a": (1, 2), "b": None}) == {}
    assert changes({"a": 1, "old": 5}, {"a": 2, "new": 3}, apart=("new",)) == {"a": (1, 2)}
    assert changes({}, {"new": 3}) == {"new": (None, 3)}


def test_a_run_is_the_same_but_for_what_decides_nothing_and_what_was_not_there_yet(tmp_path):
    config = GatedBertConfig(data="embedded")
    before = json.loads(config.to_json())
    assert config_changes(before, config.replace(checkpoint_steps=7, checkpoint_dir="s3://b/c")) == {}
    assert config_changes(before, config.replace(block_size=(8, 8))) == {"block_size": ([32, 32], [8, 8])}
    assert config_changes(before | {"devices": 2}, config.replace(devices="all")) == {}
    assert config_changes({}, config) == {}
    # A record of an earlier version: a field that it does not have was as it is by default.
    for name in ("n_best_size", "resource_seconds"):
        before.pop(name)
    assert config_changes(before, config) == {}
    assert list(config_changes(before, config.replace(n_best_size=5))) == ["n_best_size"]
    # One of a later version, which this one cannot make.
    assert list(config_changes(before | {"of_later": 1, "seed": 7}, config)) == ["seed"]
    with pytest.raises(UserError, match="--resume with seed=42, but the run was begun with 7"):
        refuse_other_config(tmp_path, before | {"seed": 7}, config)
    assert computed(config).keys() == dataclasses.asdict(config).keys() - NOT_COMPUTED


def test_a_dense_run_is_the_same_whatever_window_others_prune_in():
    dense = GatedBertConfig(data="embedded", pruning_method="baseline", epochs=5)
    before = json.loads(dense.to_json())
    assert config_changes(before, dense.replace(pruning_start_epoch=2, pruning_end_epoch=4)) == {}
    pruned = dense.replace(pruning_method="magnitude", pruning_start_epoch=1, pruning_end_epoch=5)
    other = pruned.replace(pruning_start_epoch=2)
    assert list(config_changes(json.loads(pruned.to_json()), other)) == ["pruning_start_epoch"]


def test_models_beside_a_run_move_with_the_folder_of_its_results(tmp_path):
    run, dense = tmp_path / "now/results_magnitude_sst2", "dense/results_baseline_sst2/model"
    config = GatedBertConfig(data="embedded", pretrained=str(tmp_path / "now" / dense), max_len=32)
    for name in ("pretrained", "teacher"):
        moved = config.replace(teacher=config.pretrained)
        before = json.loads(moved.replace(**{name: f"/before/results/{dense}"}).to_json())
        assert config_changes(before, moved, run) == {}
        # Nowhere, elsewhere, of another name, or of the runs themselves.
        assert list(config_changes(before, moved)) == [name]
        assert list(config_changes(before, moved, tmp_path / "other/results_magnitude_sst2")) == [name]
        before[name] = "/before/results/dense/results_baseline_mrpc/model"
        assert list(config_changes(before, moved, run)) == [name]
    # Both are there: nothing has moved, and the other one is another model.
    (tmp_path / "before" / dense).mkdir(parents=True)
    before = json.loads(config.replace(pretrained=str(tmp_path / "before" / dense)).to_json())
    assert list(config_changes(before, config, run)) == ["pretrained"]
    alone = config.replace(pretrained=str(tmp_path / "now/model"))
    assert list(config_changes({**json.loads(alone.to_json()), "pretrained": "/x/model"}, alone, run)) == ["pretrained"]
