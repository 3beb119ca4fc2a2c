import json

import pytest

from gated_bert.config import ConfigError
from gated_bert.tasks.task import TASKS, Task, get_task


def test_the_tasks_are_judged_by_their_official_metrics():
    assert {name: task.metrics for name, task in TASKS.items()} == {
        "sst2": ("accuracy",),
        "cola": ("matthews",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
        "mnli": ("accuracy",),
        "squad": ("f1", "exact_match"),
        "ag_news": ("accuracy",),
        "ner": ("f1", "precision", "recall", "accuracy"),
        "topics": ("micro_f1", "macro_f1", "subset_accuracy"),
    }
    assert {name for name, task in TASKS.items() if not task.pair} == {"sst2", "cola", "ag_news", "ner", "topics"}
    assert get_task("stsb").num_outputs == 1
    assert get_task("mnli").num_outputs == 3
    assert get_task("squad").num_outputs == 2
    assert get_task("mnli").dev_splits == ("dev_matched", "dev_mismatched")
    assert get_task("ag_news").dev_splits == ("validation", "test") and get_task("ag_news").num_outputs == 4


@pytest.mark.parametrize("name", TASKS)
def test_a_task_survives_json(name):
    assert Task.from_dict(json.loads(json.dumps(TASKS[name].to_dict()))) == TASKS[name]


def test_an_unknown_task_is_refused_with_the_closest_name():
    with pytest.raises(ConfigError, match=r"task: 'sst-2' is refused; allowed: sst2, .*did you mean sst2\?"):
        get_task("sst-2")
