"""Models pruned to speeds that are asked for: what is reached, made, told, resumed and refused."""

import dataclasses
import json
import math
import shutil

import keras
import numpy as np
import pandas as pd
import pytest

import gated_bert
from gated_bert.cli.main import main
from gated_bert.compression.latency import Conditions
from gated_bert.compression.latency_measure import measure_table
from gated_bert.compression.preconditions import speed_targets
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.studies import speedups
from gated_bert.experiments.studies.family_folder import targets_in
from gated_bert.experiments.studies.prune_to_speed import Effort, SpeedMeter, prune_to_speed
from gated_bert.experiments.studies.speedup_report import interval, off
from gated_bert.models.architecture import LayerSizes
from gated_bert.models.folder import load_model, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data
from tests.dense_model import dense_model
from tests.known_times import SHARE, known_time
from tests.pictures import is_drawn
from tests.refused import refusal

pytest.importorskip("onnxruntime")
CONDITIONS = Conditions(length=16)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The folder of a model that nothing was taught."""
    return dense_model(tmp_path_factory.mktemp("dense") / "model")


@pytest.fixture
def table(dense, timed, tmp_path):
    found = measure_table(load_model(dense).model, CONDITIONS)
    found.save(tmp_path / "table.json")
    return found


def pruned(dense, table, out, speedup, **effort):
    loaded = load_model(dense)
    config = gated_bert.GatedBertConfig(data="embedded", task="sst2")
    meter = SpeedMeter(loaded.model, table.conditions)
    examples = load_task_data(config, loaded.task).train
    return prune_to_speed(dense, out, speedup, table, meter, examples, Effort(64, 32, **{"steps": 3, **effort}))


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("speedup", [1.7, 1.3, 2.5])
def test_the_measured_speed_is_that_asked_for(dense, table, tmp_path, speedup):
    found = pruned(dense, table, tmp_path / "out", speedup)
    model = load_model(tmp_path / "out").model
    assert found.layers == model.architecture.layers and not found.note and found.tried > 0
    whole = known_time(load_model(dense).model.architecture)
    assert whole / known_time(model.architecture) == pytest.approx(found.speedup) == pytest.approx(speedup, rel=0.03)
    assert found.predicted == pytest.approx(found.speedup, rel=0.05)


def test_in_8_bits_the_dense_model_is_faster_before_anything_goes(dense, timed, tmp_path):
    table = measure_table(load_model(dense).model, dataclasses.replace(CONDITIONS, precision="int8"))
    found = pruned(dense, table, tmp_path / "four", 4)
    left = known_time(load_model(tmp_path / "four").model.architecture)
    assert SHARE["int8"] * left == pytest.approx(known_time(load_model(dense).config) / 4, rel=0.03)
    assert found.speedup == pytest.approx(4, rel=0.03) == pytest.approx(found.predicted, rel=0.05)
    assert pruned(dense, table, tmp_path / "two", 2).speedup == pytest.approx(1 / SHARE["int8"])


@pytest.mark.nightly
def test_a_table_that_is_wrong_is_put_right_by_measuring(dense, table, timed, tmp_path):
    usual = known_time
    # What the table says of neurons is a fifth of what they take now.
    timed["time"] = lambda architecture: usual(architecture) + sum(
        0.2 * layer.intermediate_size for layer in architecture.layers
    )
    found = pruned(dense, table, tmp_path / "out", 2)
    assert found.speedup == pytest.approx(2, rel=0.03) and found.predicted != pytest.approx(2, rel=0.05)


@pytest.mark.nightly
def test_the_same_seed_prunes_alike_and_another_speed_otherwise(dense, table, tmp_path):
    first, again = (pruned(dense, table, tmp_path / name, 1.7, seed=3) for name in "ab")
    assert first == again
    models = [load_model(tmp_path / name).model for name in "ab"]
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(values(one), values(other))
    assert pruned(dense, table, tmp_path / "c", 2.2, seed=3).layers != first.layers


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("order", ["magnitude", "random"])
@pytest.mark.nightly
def test_other_orders_take_the_same_share_of_every_layer(dense, table, tmp_path, order):
    found = pruned(dense, table, tmp_path / "out", 1.7, order=order)
    first, second = found.layers
    assert first == second and found.speedup == pytest.approx(1.7, rel=0.1)
    whole, small = load_model(dense).model, load_model(tmp_path / "out").model
    for block, less in zip(whole.encoder.blocks, small.encoder.blocks, strict=True):
        kernel, kept = values(block.ffn.output_dense.raw_kernel), values(less.ffn.output_dense.raw_kernel)
        # Nothing made up for the others.
        assert {row.tobytes() for row in kept} <= {row.tobytes() for row in kernel}


@pytest.mark.nightly
def test_a_speed_beyond_reach_is_refused_before_the_others_are_made(dense, table, tmp_path, capsys):
    words = _words(dense, tmp_path / "family", "--table", str(tmp_path / "table.json"), speedups="1.4,9")
    assert main(words) == 2
    assert "--speedups: 9 is refused; allowed: up to 5.5" in capsys.readouterr().err
    assert not list((tmp_path / "family").rglob("*1.4x*"))


@pytest.mark.nightly
def test_what_cannot_be_reached_says_how_far_it_goes_and_what_is_reached_is_left_alone(dense, table, tmp_path):
    with pytest.raises(UserError, match=r"--speedups: 9 is refused; allowed: up to 5\.5, that of a model without any"):
        pruned(dense, table, tmp_path / "out", 9)
    assert not (tmp_path / "out").exists()
    found = pruned(dense, table, tmp_path / "out", 1.0)
    assert "without removing anything" in found.note and found.layers == load_model(dense).model.architecture.layers


@pytest.mark.parametrize("speedup", [1.05, 2])
def test_what_was_closed_before_counts_as_gone(dense, table, tmp_path, speedup):
    loaded = load_model(dense)
    ffn = loaded.model.encoder.blocks[0].ffn
    ffn.intermediate.gates.assign(np.arange(40) < 10 + 0 * values(ffn.intermediate.gates))
    save_model(tmp_path / "closed", loaded.model, loaded.tokenizer, loaded.task, loaded.metadata)
    found = pruned(tmp_path / "closed", table, tmp_path / "out", speedup)
    made = load_model(tmp_path / "out").config
    assert made.layers == found.layers and made.layers[0].intermediate_size <= 10
    dense_ms, made_ms = known_time(loaded.config), known_time(made)
    assert found.speedup == pytest.approx(dense_ms / made_ms)
    assert ("without removing anything" in found.note) == (speedup == 1.05)


def test_which_speeds_are_off_is_told():
    rows = [{"target": target, "speedup": speedup, "when_pruned": before} for target, speedup, before in (
        (1, 1.0, math.nan), (2, 2.7, 2.7), (4, 3.5, 3.97), (4, 9.0, math.nan), (8, 8.1, 8.0))]  # fmt: skip
    assert off(rows) == "4× is 3.50× here and was 3.97× when it was pruned (times vary with what else the machine does)"
    assert off(rows[:2]) == ""


def test_targets_are_those_that_folders_tell_apart(tmp_path):
    for many in (1.0000001, 10**400):
        with pytest.raises(UserError, match="allowed: numbers above 1"):
            speed_targets([many, 2])
    assert speed_targets(np.array([4, 2])) == speed_targets([np.float32(2), np.int64(4)]) == [2, 4]
    for name in ("nan", "inf", "-2", "0.5", "1", "2", "1.50", "x"):
        (tmp_path / "models" / f"speedup_{name}x").mkdir(parents=True)
    assert list(targets_in(tmp_path)) == [2]
    assert speed_targets([4, 2, 2.0000001, 2]) == [2, 4]
    for none in ([], "24", 2, [1], [0.5, 2], ["2"], [math.nan], [math.inf], None):
        with pytest.raises(UserError, match="allowed: numbers above 1"):
            speed_targets(none)


@pytest.mark.nightly
def test_what_was_begun_with_another_model_is_none_of_a_family(dense, table, measured_here, tmp_path):
    shutil.copytree(dense, tmp_path / "other")
    loaded = load_model(tmp_path / "other")
    sizes = loaded.config.replace(layers=(LayerSizes(3, 6, 6, 30),) * 2)
    save_model(tmp_path / "other", loaded.model.rebuilt(sizes), loaded.tokenizer, loaded.task, loaded.metadata)
    out, asked = tmp_path / "family", {"conditions": CONDITIONS, "effort": Effort(64, 32, 2), "epochs": 0}
    with pytest.raises(UserError, match="50 is refused"):
        gated_bert.compress(dense, [50], out, "embedded", **asked)
    gated_bert.compress(tmp_path / "other", [1.4], out, "embedded", **asked)
    assert load_model(out / "models" / "dense").config.layers == sizes.layers
    with pytest.raises(UserError, match="--table: .*: is of 4 heads of 6 and 40 neurons a layer"):
        gated_bert.compress(tmp_path / "other", [2], tmp_path / "b", "embedded", table=tmp_path / "table.json", **asked)


def values(variable):
    return keras.ops.convert_to_numpy(variable)


def command(dense, out, *more):
    return main(_words(dense, out, *more, speedups="1.4,2"))


@pytest.fixture
def measured_here(monkeypatch):
    """The benchmark runs in this process."""
    monkeypatch.setattr("gated_bert.experiments.studies.compress.run_command", lambda words, quiet: main(words))


def test_a_family_is_made_told_and_resumed(dense, table, measured_here, tmp_path, capsys, monkeypatch):
    out = tmp_path / "family"
    assert command(dense, out, "--table", str(tmp_path / "table.json")) == 0
    rows = pd.read_csv(out / "family.csv")
    assert list(zip(rows["target"], rows["precision"], strict=True)) == [
        (target, precision) for target in (1, 1.4, 2) for precision in ("fp32", "int8")
    ]
    for name in ("dense", "speedup_1.4x", "speedup_2x"):
        for form in ("onnx", "int8"):
            assert (out / "models" / form / f"{name}.onnx").is_file()
        assert load_model(out / "models" / name).task.name == "sst2"
    assert is_drawn(out / "family.png")
    page = (out / "report.html").read_text()
    assert "1.4×" in page and "data:image/png" in page and str(tmp_path) not in page
    record = json.loads((out / "models" / "pruned_2x.json").read_text())
    assert record["speedup"] == pytest.approx(2, rel=0.03)
    told = rows.set_index(["target", "precision"])["when_pruned"]
    assert told[2, "fp32"] == record["speedup"] and math.isnan(told[2, "int8"]) and math.isnan(told[1, "fp32"])
    assert "2×: measured" in capsys.readouterr().out
    # Without --resume nothing is replaced; with it nothing is made anew.
    assert "go on with --resume" in refusal(capsys, *_words(dense, out))
    monkeypatch.setattr(speedups, "prune_to_speed", None)
    assert command(dense, out, "--table", str(tmp_path / "table.json"), "--resume") == 0
    assert "measured already" in capsys.readouterr().out
    assert main(_words(dense, out, "--resume", "--batch", "2")) == 2
    said = capsys.readouterr().err
    assert "holds a family whose conditions is" in said and "choose another folder" in said


def _words(dense, out, *more, speedups="2"):
    return ["compress", str(dense), "--speedups", speedups, "-d", "embedded", "-e", "0", "--length", "16",
            "--texts", "64", "--search-steps", "2", "-o", str(out), *more]  # fmt: skip


@pytest.mark.nightly
def test_each_target_learns_from_the_dense_model_and_starts_from_the_last(
    dense, table, measured_here, tmp_path, capfd
):
    rows = gated_bert.compress(
        dense, [1.4, 2], tmp_path / "family", "embedded", epochs=1, conditions=CONDITIONS, effort=Effort(64, 32, 2),
        table=tmp_path / "table.json", train_examples=64, batch_size=32, max_len=24,
    )  # fmt: skip
    assert [row["target"] for row in rows] == [1, 1, 1.4, 1.4, 2, 2]
    assert capfd.readouterr().out == "", "who calls it from Python has asked for rows"
    runs = tmp_path / "family" / "runs"
    for name in ("speedup_1.4x", "speedup_2x"):
        config = read_run(runs / name).config
        assert config["teacher"] == str(dense) and config["distill_layers"] == "all"
        assert config["pretrained"].endswith(name.replace("speedup", "pruned"))
    trained = load_model(tmp_path / "family" / "models" / "speedup_1.4x").model
    later = load_model(tmp_path / "family" / "models" / "pruned_2x").model
    # The second was pruned from the first as it was trained: its embeddings are those.
    first, then, last = (values(each.encoder.embeddings.position) for each in (load_model(dense).model, trained, later))
    np.testing.assert_array_equal(then, last)
    assert not np.array_equal(first, then)


def test_a_family_whose_dense_model_is_gone_learns_from_its_copy(tmp_path):
    config = gated_bert.GatedBertConfig(data="embedded", task="sst2", pruning_method="baseline", epochs=1)
    job = speedups.Job("sst2", config, tmp_path / "runs", ())
    family = speedups.Family(tmp_path / "family", None, tmp_path / "model", job, [2], CONDITIONS, Effort(), {})
    copy = tmp_path / "family" / "models" / "dense"
    copy.mkdir(parents=True)
    assert family.training(2).config.teacher == str(copy.resolve())
    (tmp_path / "model").mkdir()
    assert family.training(2).config.teacher == str((tmp_path / "model").resolve())


@pytest.mark.parametrize(("words", "said"), [
    (["--speedups", "0.5"], "--speedups: '0.5' is refused; allowed: numbers above 1"),
    (["--speedups", "two"], "--speedups: 'two' is refused; allowed: numbers above 1"),
    (["--speedups", "2", "--precision", "int4"], "--precision: 'int4' is refused; allowed: fp32, int8"),
    (["--speedups", "2", "--graph", "tiled"], "--graph: 'tiled' is refused; allowed: fused, standard"),
    (["--speedups", "2", "--table", "nowhere.json"], "--table: 'nowhere.json' is refused; allowed: a file"),
    (["--speedups", "2", "--levels", "20"], "--levels"),
    (["--speedups", "2", "-pt", "x"], "-pt/--pretrained: not together with a model folder"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_starts(dense, tmp_path, capsys, words, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, "compress", str(dense), "-d", "embedded", "-o", str(tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_what_no_model_can_be_served_by_is_refused_before_a_dense_one_is_trained(dense, table, tmp_path, capsys):
    words = ["compress", "-m", "tiny", "-d", "embedded", "--speedups", "2", "-o", str(tmp_path / "out")]
    assert "--length: 5000 is refused; allowed: 1 to" in refusal(capsys, *words, "--length", "5000")
    table = str(tmp_path / "table.json")
    assert "the latency table is of 2 layers of 24" in refusal(capsys, *words, "--length", "16", "--table", table)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_is_refused(tmp_path, capsys):
    for words in (["compress", "nowhere", "--speedups", "2", "-d", "embedded"], ["latency-table", "nowhere"]):
        assert "nowhere: no such file or folder" in refusal(capsys, *words)


def test_the_interval_is_wilsons_and_of_accuracies_alone():
    # Brown, Cai and DasGupta 2001: the centre is (x + z²/2) / (n + z²).
    low, high = interval("accuracy", 0.9, 100)
    z = 1.959964
    assert (low + high) / 2 == pytest.approx((90 + z**2 / 2) / (100 + z**2), rel=1e-5)
    assert high - low == pytest.approx(2 * z * math.sqrt(100 * 0.9 * 0.1 + z**2 / 4) / (100 + z**2), rel=1e-5)
    assert all(map(math.isnan, interval("matthews", 0.5, 100)))


def test_the_table_of_a_folder_is_measured_by_its_command(dense, timed, tmp_path, capsys):
    shutil.copytree(dense, tmp_path / "model")
    words = ["latency-table", str(tmp_path / "model"), "-o", str(tmp_path / "t.json")]
    assert main([*words, "--length", "16", "--repeats", "5"]) == 0
    said = capsys.readouterr().out
    assert "attention, 4 heads" in said and "1 × 16 tokens, 1 thread, ONNX Runtime, fused graph, fp32" in said
    assert json.loads((tmp_path / "t.json").read_text())["dense"] == pytest.approx(known_time(load_model(dense).config))
    assert main([*words, "--length", "65"]) == 2
    assert "--length: 65 is refused; allowed: 1 to 64" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_target_between_two_others_makes_the_later_one_anew(dense, table, measured_here, tmp_path, monkeypatch):
    def family(*speeds):
        return gated_bert.compress(
            dense, speeds, tmp_path / "family", "embedded", epochs=1, conditions=CONDITIONS, effort=Effort(64, 32, 2),
            table=tmp_path / "table.json", train_examples=32, batch_size=32, max_len=24,
        )  # fmt: skip

    family(2.2)
    family(1.4, 2.2)
    folder = tmp_path / "family" / "models"
    pruned, final = (load_model(folder / name).config.layers for name in ("pruned_2.2x", "speedup_2.2x"))
    assert pruned == final
    # Asked for once, a target stays in the family; what is no model's name is none.
    (folder / "speedup_oldx").mkdir()
    assert {row["target"] for row in family(1.4)} == {1, 1.4, 2.2}

    def stopped(source, out, speedup, *others):
        raise UserError(f"stopped at {speedup:g}")

    monkeypatch.setattr(speedups, "prune_to_speed", stopped)
    with pytest.raises(UserError, match="stopped at 1.8"):
        family(1.8)
    assert load_model(folder / "speedup_2.2x").config.layers == final, "until another one is there"


@pytest.mark.parametrize(("changes", "said"), [
    ({"conditions": Conditions(batch=2, length=16)}, "its batch is 1, and 2 was asked for"),
    ({"conditions": Conditions(length=16, precision="int8")}, "its precision is fp32, and int8 was asked for"),
    ({"conditions": Conditions(length=200)}, "--length: 200 is refused; allowed: 1 to 64|its length is 16"),
    ({"speedups": [1.0, 2]}, "speedups: .* is refused; allowed: numbers above 1"),
    ({"speedups": 2}, "speedups: 2 is refused"), ({"speedups": []}, "speedups: .* is refused"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_made(dense, table, tmp_path, changes, said):
    asked = {"speedups": [2], "conditions": CONDITIONS} | changes
    with pytest.raises(UserError, match=said):
        gated_bert.compress(dense, output=tmp_path / "out", data="embedded", epochs=0,
                            table=tmp_path / "table.json", **asked)  # fmt: skip
    assert not (tmp_path / "out" / "models").exists()


def test_the_task_is_the_models_and_folders_of_other_tools_are_refused(dense, tmp_path, capsys):
    words = ["--speedups", "2", "-d", "embedded", "-o", str(tmp_path / "out")]
    found = refusal(capsys, "compress", str(dense), "-t", "mnli", *words)
    assert "-t/--task: 'mnli' is refused; allowed: sst2" in found
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert "allowed: a model folder" in refusal(capsys, "compress", str(tmp_path / "other"), *words)


@pytest.mark.nightly
def test_choices_of_levels_are_measured(dense, monkeypatch):
    from benchmarks import level_search

    monkeypatch.setattr(level_search, "JUDGED", 32)
    found = level_search.measure(str(dense), "embedded", [64], steps=3, seed=0)
    assert found.groupby("share").levels.nunique().to_dict() == {0.25: 5, 0.5: 5}
    assert (found.dev_loss > 0).all() and (found.weights_gone > 0.2).all()
    drawn, start = (found[found.levels == f"measured weights, {how}"] for how in ("3 draws", "no draws"))
    assert (drawn.searched_loss.to_numpy() <= start.searched_loss.to_numpy()).all()
    encoder = level_search.Encoder(str(dense), "embedded", 64)
    whole = encoder.judge((0,) * len(encoder.costs))
    assert whole["weights_gone"] == whole["searched_loss"] == 0 and whole["dev_loss"] == pytest.approx(0, abs=1e-4)
