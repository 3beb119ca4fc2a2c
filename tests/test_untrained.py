"""Records of runs that prune a trained model at once, without training."""

from __future__ import annotations

import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.recipes import RECIPES
from gated_bert.pruning.learning_rates import learning_rate
from gated_bert.pruning.schedules import OneShot, build_schedule
from gated_bert.support.checks import FlagError
from tests.test_settings import plan

DENSE = {"epochs": 0, "pretrained": "some/bert", "model_size": "tiny"}


@pytest.mark.parametrize("method", ["magnitude", "wanda", "obert", "baseline"])
def test_nothing_else_need_be_said_than_that_there_are_no_epochs(method):
    config = GatedBertConfig(**DENSE, pruning_method=method)
    assert config.pruning_start_epoch == 1
    assert GatedBertConfig.from_json(config.to_json()) == config
    if method != "baseline":
        schedule = build_schedule(config)
        assert type(schedule) is OneShot and schedule(1.0) == config.end_sparsity


def test_a_sweep_of_no_epochs_says_nothing_of_when_to_prune_either():
    (job,) = plan("-p sparsegpt -f 0.5 -e 0 -pt some/bert").jobs
    assert (job.config.schedule, job.config.pruning_start_epoch, job.config.end_sparsity) == ("one_shot", 1, 0.5)
    with pytest.raises(FlagError, match="-ps/--pruning-start: 4 is refused; allowed: 1 to 1 "):
        plan("-p sparsegpt -e 0 -pt some/bert -ps 4")


@pytest.mark.parametrize("schedule", ["linear", "constant", "cyclic"])
def test_every_learning_rate_is_one_of_no_epochs_too(schedule):
    assert float(learning_rate(GatedBertConfig(**DENSE, pruning_method="wanda", lr_schedule=schedule), 3)(0)) >= 0


def test_what_means_nothing_without_training_is_refused():
    for values, told in (
        ({"pruning_warmup": 0.1}, "pruning_warmup: 0.1 is refused; allowed: no value with epochs=0"),
        ({"pruning_cooldown": 3}, "pruning_cooldown: 3 is refused; allowed: no value with epochs=0"),
        ({"teacher": "folder"}, "teacher: 'folder' is refused; allowed: none with epochs=0"),
        ({"schedule": "cubic"}, "epochs: 0 is refused; allowed: 1 up, or with schedule one_shot"),
        ({"pruning_start_epoch": 4}, "pruning_start_epoch: 4 is refused; allowed: 1 to 1 "),
    ):
        with pytest.raises(ConfigError, match=told):
            GatedBertConfig(**DENSE, pruning_method="magnitude", **values)


@pytest.mark.parametrize("recipe", RECIPES)
def test_of_a_recipe_stays_what_means_something_without_training(recipe):
    (job,) = plan(f"--recipe {recipe} -e 0 -pt some/bert -p wanda,baseline -f 0.5").jobs[:1]
    assert (job.config.schedule, job.config.pruning_warmup, job.config.teacher) == ("one_shot", None, None)
    batch = RECIPES[recipe].values["batch_size"]
    assert job.config.batch_size == batch
    made = GatedBertConfig(**DENSE, recipe=recipe, criterion="magnitude")
    assert (made.schedule, made.pruning_every, made.batch_size) == ("one_shot", 1, batch)
    assert GatedBertConfig.from_json(made.to_json()) == made
