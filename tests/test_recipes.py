"""Published recipes: what they set, what is said otherwise, and that a record of a run holds both name and values."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.cli.settings import read_settings
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.later_fields import LATER, as_written_before
from gated_bert.config.option import declared_fields
from gated_bert.config.parts import CRITERIA, VARIANTS, options_of_others
from gated_bert.config.recipes import OF_PRETRAINED, RECIPES
from gated_bert.experiments.reports.aggregate import _identity
from gated_bert.experiments.reports.results import Run
from gated_bert.experiments.runs import job_process
from gated_bert.experiments.runs.same_record import config_changes
from gated_bert.experiments.sweeps.jobs import plan_grid
from gated_bert.experiments.sweeps.overview import configuration_text
from gated_bert.pruning.criteria.base import class_of
from gated_bert.pruning.schedules import build_schedule
from gated_bert.support.checks import FlagError
from tests.test_settings import plan

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
OLD = Path(__file__).parent / "fixtures/old_run/results_magnitude_sst2"
HERE = [name for name, recipe in RECIPES.items() if recipe.values.get("pruning_method") in (None, *CRITERIA)]


def made(recipe, **values):
    return GatedBertConfig(**{"recipe": recipe, "model_size": "tiny", "pretrained": "some/bert", **values})


@pytest.mark.parametrize("name", HERE)
def test_a_recipe_sets_its_fields_and_each_may_be_said_otherwise(name):
    config, recipe = made(name), RECIPES[name]
    for field, value in recipe.values.items():
        assert getattr(config, field) == value, field
    for field, share in recipe.epochs.items():
        assert getattr(config, field) == round(share * config.epochs)
    assert made(name, epochs=3).epochs == 3
    assert made(name, batch_size=7, learning_rate=2e-5).learning_rate == 2e-5, "a default that is said counts as said"
    written = GatedBertConfig.from_json(config.to_json())
    assert written == config and written.recipe == name
    assert written.replace(epochs=6) == config.replace(epochs=6) == made(name, epochs=6)
    assert GatedBertConfig.from_json(made(name, batch_size=7).to_json()).replace(epochs=6).batch_size == 7


def test_of_random_weights_neither_the_rate_nor_what_is_frozen_is_taken_over():
    config = made("movement", pretrained=None)
    assert (config.learning_rate, config.freeze) == (GatedBertConfig(model_size="tiny").learning_rate, "none")
    assert made("movement").freeze == "embeddings"


def test_what_says_when_to_prune_takes_the_place_of_what_a_recipe_says_of_it():
    config = made("movement", pruning_start_epoch=3)
    assert (config.pruning_warmup, config.pruning_start_epoch, config.pruning_cooldown) == (None, 3, 0.2)
    assert GatedBertConfig.from_json(config.to_json()) == config
    assert made("movement", movement_schedule="linear").schedule == "linear"
    listed = made("platon", sparsity_steps=(10, 50), pruning_start_epoch=2)
    assert (listed.schedule, listed.pruning_cooldown) == ("steps", None)
    assert made("movement", criterion="magnitude").criterion == "magnitude"
    with pytest.raises(ConfigError, match="recipe: 'movment' is refused; allowed: movement.*"):
        made("movment")


def shown(words):
    made = plan(words)
    lines = configuration_text(made).splitlines()
    return {line[2:].split("  ")[0]: line.split("  ")[-1].strip() for line in lines if line.startswith("  ")}, lines


@pytest.mark.parametrize(("recipe", "said", "expected"), [
    ("best", {"teacher": None}, {"distill_hardness": None, "teacher": None}),
    ("best", {"teacher": None, "pruning_method": "soft_movement"}, {"scope": "layer"}),
    ("obert", {"teacher": None, "pruning_method": "l0"}, {"scope": "layer"}),
    ("movement", {"pruning_method": "cofi"}, {"scope": "global"}),
    ("best", {"teacher": "dense", "criterion": "l0"}, {"scope": "layer"}),
    ("cofi", {"teacher": "dense", "distill_layers": "none"}, {"distill_layer_weight": 0.0}),
    ("cofi", {"teacher": "dense", "distill_layers": "last"}, {"distill_layer_weight": 9.0}),
    ("movement", {"schedule": "auto"}, {"schedule": "auto", "pruning_warmup": None, "pruning_cooldown": None}),
    ("obert", {"teacher": "dense", "schedule": "steps", "sparsity_steps": (50, 60)}, {"pruning_warmup": None}),
    ("obert", {"teacher": "dense", "end_sparsity": 0.5}, {"start_sparsity": 0.5, "end_sparsity": 0.5}),
    ("obert", {"teacher": "dense", "end_sparsity": 0.9}, {"start_sparsity": 0.7}),
    ("best", {"teacher": "dense", "lr_schedule": "linear"}, {"lr_cycle_epochs": None}),
    ("best", {"teacher": "dense", "lr_schedule": "cyclic"}, {"lr_cycle_epochs": 2}),
])  # fmt: skip
def test_what_hung_on_a_part_that_is_said_otherwise_goes_with_it(recipe, said, expected):
    config = made(recipe, **said)
    assert {name: getattr(config, name) for name in expected} == expected
    assert {name: getattr(config, name) for name in said} == said
    assert GatedBertConfig.from_json(config.to_json()) == config


def test_a_window_without_a_beginning_of_an_epoch_is_refused_where_masks_move_there_alone():
    with pytest.raises(ConfigError, match="pruning_warmup: .* is refused; allowed: less: magnitude moves masks at the"):
        made("best", epochs=1, teacher="dense")
    assert made("movement", epochs=1).epochs == 1
    with pytest.raises(ConfigError, match="lr_cycle_epochs: 3 is refused; allowed: None without lr_schedule cyclic"):
        GatedBertConfig(lr_cycle_epochs=3)


def test_what_is_known_of_a_criterion_without_a_framework_is_what_its_class_does():
    for part in (*CRITERIA.values(), *VARIANTS.values()):
        kind = class_of(part)
        assert (kind.every_step, kind.selects) == (part.options.INSIDE_EPOCHS, part.options.RANKS), kind


def test_what_a_recipe_sets_is_shown_before_the_start():
    rows, lines = shown("--recipe soft_movement -pt some/bert -e 20")
    assert rows["recipe"] == rows["methods"] == "soft_movement"
    assert (rows["epochs"], rows["batch size"], rows["learning rate"]) == ("20", "32", "3e-05")
    assert (rows["pruning epochs"], rows["schedule"], rows["freeze"]) == ("3 to 17", "cubic", "embeddings")
    assert (rows["pruning warmup"], rows["pruning cooldown"]) == ("0.1", "0.2")
    assert (rows["soft movement penalty"], rows["penalty over"]) == ("400.0", "matrices")
    assert not any("pruning starts" in line for line in lines)
    rows, lines = shown("--recipe platon -b 8 -f 0.8 -m tiny -d embedded")
    assert (rows["batch size"], rows["end sparsity"], rows["epochs"]) == ("8", "80 %", "8")
    assert rows["learning rate"] == "0.0005 (from scratch; 2e-05 with pretrained weights)"
    assert "note: recipe platon: without -pt its learning rate, of pretrained weights, are left out" in lines


def test_of_a_recipe_for_other_criteria_their_options_are_not_shown():
    movements = {"movement learning rate", "movement pruning frequency steps"}
    assert not movements & shown("--recipe movement -p magnitude,platon")[0].keys()
    assert movements <= shown("--recipe movement -p magnitude,movement")[0].keys()
    typed = shown("--recipe movement -p magnitude --movement-frequency 3")[0].keys()
    assert movements - typed == {"movement learning rate"}
    assert "cofi penalty" not in shown("--recipe cofi -p magnitude --teacher none")[0]


def test_one_run_shows_what_a_recipe_sets_of_it_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job_process, "run_job", lambda *run: 0)
    words = ["train", "-d", "embedded", "-t", "sst2", "-m", "tiny", "--recipe", "movement", "-e", "2"]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    rows = dict(line.strip().split("  ", 1) for line in said.splitlines() if line.startswith("  "))
    rows = {name: value.strip() for name, value in rows.items()}
    assert (rows["recipe"], rows["movement learning rate"], rows["warmup ratio"]) == ("movement", "0.01", "0.1")
    assert rows["output"] == str(tmp_path / "run")
    assert "recipe movement: without -pt its freeze and learning rate, of pretrained weights, are left out" in said


def test_flags_beside_a_recipe_are_the_records():
    words = "--recipe movement -p movement,magnitude -pt some/bert -ps 2 -e 6 -l 1e-4"
    configs = [job.config for job in plan(words).jobs]
    assert [config.pruning_method for config in configs] == ["movement", "magnitude"]
    for config in configs:
        assert (config.recipe, config.pruning_start_epoch, config.pruning_warmup) == ("movement", 2, None)
        assert (config.learning_rate, config.batch_size, config.freeze) == (1e-4, 32, "embeddings")
    methods = [job.config.pruning_method for job in plan("--recipe published-spt -e 10 -m small").jobs]
    assert methods == ["magnitude", "movement", "spt", "baseline"]
    spt, movement = (plan(f"--recipe published-spt -p {name} -m small").jobs[0].config for name in ("spt", "movement"))
    assert (spt.spt_variant, spt.schedule) == ("published", "auto")
    assert (spt.pruning_start_epoch, spt.pruning_end_epoch) == (4, 23)
    assert movement.movement_pruning_frequency_steps == 200
    with pytest.raises(FlagError, match="--recipe: 'smp' is refused; allowed: movement, soft_movement"):
        plan("--recipe smp")


@pytest.mark.parametrize("words", ["-e 4 -ss 10,20,90", "-e 10 -ss 10,20,30,40,50,60,70,90", "-e 3 --schedule auto"])
@pytest.mark.parametrize("name", [name for name in HERE if "pruning_warmup" in RECIPES[name].values])
def test_a_schedule_that_is_said_has_the_epochs_that_it_has_without_a_recipe(name, words):
    method = RECIPES[name].values["pruning_method"]
    ours, usual = (plan(f"{each} {words} -d embedded -m tiny --teacher none").jobs[0].config
                   for each in (f"--recipe {name}", f"-p {method}"))  # fmt: skip
    windows = [(run.pruning_start_epoch, run.pruning_end_epoch, run.schedule) for run in (ours, usual)]
    assert windows[0] == windows[1] and ours.pruning_warmup is None and ours.recipe == name


def test_students_of_a_dense_model_from_scratch_are_trained_as_the_configuration_shows():
    values = {"recipe": "movement", "teacher": "self", "model_size": "tiny"}
    jobs = plan_grid({}, lambda point: read_settings(values, {}, {})).jobs
    assert [job.config.enable_pruning for job in jobs] == [False, True]
    for field in OF_PRETRAINED:
        assert len({getattr(each, field) for job in jobs for each in (job.config, job.asked)}) == 1, field


def test_the_teacher_of_a_recipe_is_fine_tuned_as_dense_models_are():
    def jobs(**values):
        made = plan_grid({}, lambda point: read_settings({"recipe": "best", **values}, {}, {}))
        return [job.config for job in made.jobs]

    teacher, student = jobs(pretrained="some/bert", end_sparsity=0.9)
    as_usual = GatedBertConfig(pruning_method="baseline", pretrained="some/bert", batch_size=32, warmup_ratio=0.1,
                               epochs=2, learning_rate=1e-4, task=teacher.task, max_len=teacher.max_len)  # fmt: skip
    for field in {*RECIPES["best"].values, *RECIPES["best"].epochs, "recipe"} - {"start_sparsity", "schedule"}:
        assert getattr(teacher, field) == getattr(as_usual, field), field
    assert (student.recipe, student.epochs, student.learning_rate, student.lr_cycle_epochs) == ("best", 11, 5e-4, 2)
    steps = [build_schedule(student, 10, False)(epoch) for epoch in range(1, 12)]
    assert steps[:4] == [0, 0.5, 0.5, pytest.approx(0.78, abs=0.01)] and steps[7:] == [0.9] * 4
    typed = jobs(pretrained="some/bert", epochs=5, learning_rate=3e-4, freeze="none")
    assert [(config.epochs, config.learning_rate, config.freeze) for config in typed] == [(5, 3e-4, "none")] * 2
    # From scratch the dense model is trained as long as the pruned one, at the rate that learns.
    scratch = jobs(model_size="tiny")
    assert [(config.epochs, config.learning_rate) for config in scratch] == [(11, scratch[0].learning_rate)] * 2


def test_without_weights_and_a_rate_one_is_taken_that_learns_from_scratch():
    sizes = ("tiny", "small", "bert-mini", "base")
    usual = [GatedBertConfig(model_size=size).learning_rate for size in sizes]
    cases = [*(f"-m {size}" for size in sizes), "-m tiny -l 2e-5", "-pt some/bert", "-m tiny -pt some/bert"]
    rates = [{job.config.learning_rate for job in plan(words).jobs} for words in cases]
    assert rates == [*({rate} for rate in usual), {2e-5}, {2e-5}, {2e-5}]
    assert min(usual) > 2e-5
    # What a script's own head says is said.
    assert plan("-m tiny", "learning_rate=7e-5").jobs[0].config.learning_rate == 7e-5
    # Also of a run that starts from a dense model of its own.
    assert plan("-m tiny").jobs[0].config.replace(pretrained="dense").learning_rate == usual[0]
    assert "from scratch" not in shown("-m tiny -l 2e-5")[0]["learning rate"]


def test_fields_that_came_later_mean_what_runs_did_without_them():
    before = json.loads(next(OLD.glob("metadata_*.json")).read_text())["config"]
    config = GatedBertConfig.from_dict(before)
    assert {name: getattr(config, name) for name in LATER} == LATER
    assert config.soft_movement_penalty == 25.0 and config.movement_pruning_frequency_steps == 100
    # Defaults that have changed are of other criteria, and do not stand in the way of going on by flags.
    of_run = set(before) - options_of_others("magnitude")
    today = GatedBertConfig(**{name: before[name] for name in of_run})
    assert today != config and not config_changes(before, today)
    written = as_written_before(json.loads(today.to_json()))
    assert {name: written[name] for name in before} == before and not LATER.keys() & written.keys()
    soft = today.replace(pruning_method="soft_movement", criterion=None, schedule="linear")
    was = before | {"pruning_method": "soft_movement", "criterion": "soft_movement", "scope": "layer"}
    assert {"soft_movement_penalty", "penalty_over"} <= config_changes(was, soft).keys()


def test_an_earlier_run_of_wanda_was_scored_on_batches_and_is_told_apart_from_one_of_today():
    before = json.loads(next(OLD.glob("metadata_*.json")).read_text())["config"]
    was = before | {"pruning_method": "wanda", "criterion": "wanda", "scope": "output"}
    config = GatedBertConfig.from_dict(was)
    assert (config.calibrate, config.calibration_texts) == ("parallel", 8 * config.batch_size)
    changed = config_changes(was, config.replace(calibrate="sequential", calibration_texts=1024))
    assert changed.keys() == {"calibrate", "calibration_texts"}
    today = json.loads(config.replace(calibrate="sequential", calibration_texts=1024).to_json())
    runs = [Run(OLD, {"config": each, "task": {"name": "sst2"}, "seed": 1}, pd.DataFrame({"sparsity": [0.5]}), OLD)
            for each in (was, today)]  # fmt: skip
    assert len({_identity(run) for run in runs}) == 2


def test_options_of_others_are_those_that_no_form_of_a_criterion_has():
    for name, part in CRITERIA.items():
        assert not options_of_others(name) & declared_fields(part.options).keys()
    assert "spt_reward" in options_of_others("magnitude") and "spt_reward" not in options_of_others("spt")
    assert options_of_others(None) >= options_of_others("magnitude")
    assert not options_of_others("a_users_own")


def table():
    """The page's table, out of the data."""
    lines = ["| recipe | sets |", "| --- | --- |"]
    for name, recipe in RECIPES.items():
        values = [f"`{field}` {value:.3g}" if isinstance(value, float) else f"`{field}` {value}"
                  for field, value in recipe.values.items()]  # fmt: skip
        values += [f"`{field}` {share:.3g} of the epochs" for field, share in recipe.epochs.items()]
        values += [f"`{field}` by the size" for field in recipe.by_size]
        values += [f"dense models that teach: `{field}` {value}" for field, value in recipe.dense.items()]
        missing = f"; {recipe.missing}" if recipe.missing else ""
        lines.append(f"| `{name}`: {recipe.about}{missing} | {', '.join(values)} |")
    return "\n".join(lines)


def test_the_page_shows_what_the_recipes_are():
    assert table() in PAGE.read_text(encoding="utf-8")
