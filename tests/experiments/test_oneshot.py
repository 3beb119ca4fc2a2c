"""One-shot pruning: how much is pruned, what is written, what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from gated_bert import GatedBertConfig, train
from gated_bert.cli import compress_commands, oneshot_commands
from gated_bert.cli.main import main
from gated_bert.cli.oneshot_commands import AT_ONCE
from gated_bert.cli.settings import read_settings
from gated_bert.compression.model_statistics import parameter_counts
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs.status import Status
from gated_bert.experiments.studies.oneshot import Point, oneshot_plans
from gated_bert.experiments.studies.oneshot_table import _POINT, table_row
from gated_bert.experiments.sweeps.jobs import plan_jobs
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model
from gated_bert.support.errors import UserError
from gated_bert.support.paths import file_name
from tests.experiments.synthetic_runs import write_run

BASE = BertConfig.uniform(12, 768, 12, 3072, vocab_size=30522, num_outputs=2)
MINILM = BertConfig.uniform(6, 384, 12, 1536, vocab_size=30522, num_outputs=2)
ROLES = ("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output", "pooler")


def sizes(architecture):
    weights = architecture.weight_counts()
    return architecture.num_parameters, sum(weights[role] for role in ROLES)


@pytest.mark.parametrize("compression, percent", [(2, 64.0), (3.5, 91.4), (4, 96.0)])
def test_the_published_compressions_of_bert_base_are_these_sparsities(compression, percent):
    assert sizes(BASE)[0] == 109_483_778
    assert 100 * Point(compression=compression).sparsity_in(*sizes(BASE)) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize("architecture, largest", [(BASE, "4.56"), (MINILM, "1.9")])
def test_a_compression_that_embeddings_rule_out_is_refused_with_the_largest(architecture, largest):
    with pytest.raises(UserError, match=rf"--compression: 5 is refused; allowed: 1 to {largest}, since"):
        Point(compression=5).sparsity_in(*sizes(architecture))
    assert 0.98 < Point(compression=float(largest)).sparsity_in(*sizes(architecture)) < 1


def test_a_compression_of_the_prunable_weights_knows_no_embeddings():
    assert Point(compression=10, compression_of="prunable").sparsity_in(*sizes(MINILM)) == pytest.approx(0.9)
    assert Point(sparsity=0.3).sparsity_in(0, 0) == 0.3
    assert [Point(compression=3.5).name, Point(sparsity=0.914).name] == ["compression3.5", "sparsity91.4"]


@pytest.mark.parametrize("value", [1e-5, 0.1, 7, 14.3, 20, 57, 91.4, 91.123456, 91.123457, 99.99999, 100, 1e6])
def test_a_point_is_read_again_from_the_folder_that_it_names(value):
    points = [Point(compression=value)] if value > 1 else []
    for point in [*points, Point(sparsity=value / 100)]:
        ((asked, number),) = _POINT.findall(f"results_random_sst2_{file_name(point.name)}_seed3")
        assert asked in ("compression", "sparsity") and float(number) == value


def plans(output, points, dense_epochs=1, tuned=True):
    typed = {"methods": ("random", "magnitude"), "data": "embedded", "output": str(output), **AT_ONCE}
    return oneshot_plans(plan_jobs(read_settings(typed, {}, {})), points, dense_epochs, tuned)


def test_points_that_differ_have_folders_of_their_own_or_are_refused(tmp_path):
    near = [Point(sparsity=0.9999999), Point(sparsity=1.0), Point(sparsity=0.91123456), Point(sparsity=0.91123457)]
    assert len({job.folder for job in plans(tmp_path, near)[1].jobs}) == 8
    with pytest.raises(UserError, match=r"sparsity50: two runs would share this folder"):
        plans(tmp_path, [Point(sparsity=0.5), Point(sparsity=0.5 + 1e-15)])


def test_a_dense_model_that_is_not_trained_yet_is_pruned_without_training(tmp_path):
    dense, pruned = plans(tmp_path, [Point(sparsity=0.5)], dense_epochs=3, tuned=False)
    assert [job.config.epochs for job in dense.jobs] == [3] and dense.jobs[0].config.pretrained is None
    assert [job.config.epochs for job in pruned.jobs] == [0, 0]
    assert {job.config.pretrained for job in pruned.jobs} == {str((dense.jobs[0].folder / "model").resolve())}


@pytest.mark.parametrize("command", [("oneshot", "--sparsities", "50"), ("compress", "--levels", "50")])
def test_commands_prune_without_training_what_they_train_first(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    words = (*command, "-d", "embedded", "-t", "sst2", "-e", "0", "--dense-epochs", "3", "-o", str(tmp_path / "out"))
    monkeypatch.delenv("BENCHMARK_EPOCHS", raising=False)
    made = []

    def kept(*args, **options):
        made.append(oneshot_plans(*args, **options))
        return made[-1]

    for module in (oneshot_commands, compress_commands):
        monkeypatch.setattr(module, "oneshot_plans", kept)

    def epochs(*more):
        assert main([*words, "--dry-run", *more]) == 0
        return [{job.config.epochs for job in each.jobs} for each in made.pop()]

    assert epochs() == [{3}, {0}]
    assert re.search(r"^ +epochs +0$", capsys.readouterr().out, re.M)
    assert epochs("--recipe", "best") == [{3}, {0}]
    monkeypatch.setenv("BENCHMARK_EPOCHS", "2")
    assert epochs() == [{3}, {2}]


@pytest.mark.parametrize("span_head", [False, True])
def test_counts_from_the_architecture_are_those_of_the_model(span_head):
    layers = (LayerSizes(2, 3, 5, 7), LayerSizes(4, 2, 2, 6))
    architecture = BertConfig(30, 8, layers, original_head_dim=4, num_outputs=2, span_head=span_head)
    model = BertClassifier(architecture)
    assert architecture.num_parameters == parameter_counts(model)[0]
    assert sum(architecture.weight_counts().values()) == sum(np.prod(x.raw_kernel.shape) for x in model.gated_layers())


def oneshot(output, *flags):
    return main([
        "oneshot", "-d", "embedded", "--num-layers", "1", "--d-model", "32", "--dff", "64", "-m", "tiny", "-b", "32",
        "--train-examples", "96", "-ml", "16", "-max-parallel-jobs", "2", "-o", str(output), *flags,
    ])  # fmt: skip


@pytest.mark.slow
@pytest.mark.nightly
def test_the_command_prunes_each_dense_model_at_once_and_fine_tunes(jobs_here, tmp_path):
    flags = ["-t", "sst2", "--strategy", "magnitude", "--compression", "1.1,1.2", "-e", "2", "--dense-epochs", "1"]
    assert oneshot(tmp_path, *flags, "--seeds", "1,2") == 0
    table = pd.read_csv(tmp_path / "oneshot.csv")
    assert list(table["asked_value"]) == [1.1, 1.2] * 2 and list(table["seed"]) == [1, 1, 2, 2]
    assert np.allclose(table["compression"], table["asked_value"], atol=2e-3)
    dense = load_model(tmp_path / "dense" / "results_baseline_sst2_seed1" / "model")
    trained = pd.read_csv(next((tmp_path / "dense" / "results_baseline_sst2_seed1").glob("results_*.csv")))
    assert set(table[table["seed"] == 1]["before"]) == {trained["val_accuracy"].iloc[-1]}
    run = tmp_path / "results_magnitude_sst2_compression1.2_seed1"
    pruned = load_model(run / "model")
    rows = pd.read_csv(next(run.glob("results_*.csv")))
    assert np.allclose(rows["sparsity"], table["sparsity"][1]) and len(rows) == 2
    for before, after in zip(dense.model.gated_layers(ROLES), pruned.model.gated_layers(ROLES), strict=True):
        # Layer scope: in every matrix the smallest of the dense model's weights are gone.
        closed = np.asarray(after.mask_variable) == 0
        size = np.abs(np.asarray(before.raw_kernel))
        assert size[closed].max() <= size[~closed].min()
    summary = pd.read_csv(tmp_path / "oneshot_summary.csv")
    assert list(summary["n"]) == [2, 2]
    # The comparison puts the seeds together although each starts from a model of its own.
    assert main(["compare", *map(str, tmp_path.glob("results_*")), "-o", str(tmp_path / "compared")]) == 0
    assert list(pd.read_csv(tmp_path / "compared" / "comparison_summary.csv")["n"]) == [2, 2]
    assert (tmp_path / "oneshot.png").exists()


@pytest.mark.slow
@pytest.mark.nightly
def test_right_after_pruning_is_measured_before_fine_tuning(jobs_here, tmp_path):
    flags = ["-t", "stsb", "--strategy", "magnitude", "--sparsities", "99", "-e", "1", "--dense-epochs", "1"]
    assert oneshot(tmp_path, *flags, "-l", "1e-30") == 0
    row = pd.read_csv(tmp_path / "oneshot.csv").iloc[0]
    # At this learning rate nothing is learnt: what is lost is lost at once, and stays lost.
    assert row["loss_before"] != row["loss_after"] == pytest.approx(row["loss_final"], abs=1e-6)
    assert row["asked"] == "sparsity" and row["sparsity"] == pytest.approx(0.99, abs=1e-2)


@pytest.mark.slow
def test_a_trained_model_is_pruned_without_training(jobs_here, tmp_path, monkeypatch):
    small = {"num_layers": 1, "d_model": 32, "dff": 64, "num_heads": 2, "train_examples": 96, "max_len": 16}
    record = GatedBertConfig(model_size="tiny", pruning_method="baseline", data="embedded", epochs=1, **small)
    dense = train(record, tmp_path / "dense")
    flags = ["-d", "embedded", "-t", "sst2", "-pt", str(dense.folder / "model"), "--train-examples", "96", "-ml", "16",
             "-b", "32", "-e", "0", "--strategy", "magnitude,sparsegpt", "--sparsities", "50",
             "-max-parallel-jobs", "1", "-o", str(tmp_path / "out")]  # fmt: skip
    assert main(["oneshot", *flags]) == 0
    table = pd.read_csv(tmp_path / "out" / "oneshot.csv")
    assert list(table["strategy"]) == ["magnitude", "sparsegpt"]
    assert np.allclose(table["sparsity"], 0.5, atol=1e-3) and not (tmp_path / "out" / "dense").exists()
    np.testing.assert_allclose(table["before"], dense.final["val_accuracy"], atol=1e-6)
    np.testing.assert_array_equal(table["after"], table["final"])
    assert (table["loss_before"] != table["loss_after"]).all()
    run = tmp_path / "out" / "results_sparsegpt_sst2_sparsity50"
    (rows,) = (pd.read_csv(path) for path in run.glob("results_*.csv"))
    assert list(rows["epoch"]) == [0] and rows["train_loss"].isna().all() and rows["target_sparsity"][0] == 0.5
    pruned = load_model(run / "model").model.gated_layers(ROLES)
    assert all(0.4 < (np.asarray(layer.mask_variable) == 0).mean() < 0.6 for layer in pruned)
    assert len(list(run.glob("*.png"))) == 2
    # A record need say nothing more, and whoever watches the run sees how far it is.
    record = GatedBertConfig(data="embedded", epochs=0, pruning_method="wanda", pretrained=str(dense.folder / "model"),
                             train_examples=96, max_len=16, end_sparsity=0.5)  # fmt: skip
    told = []
    monkeypatch.setattr(Status, "due", True)
    assert train(record, tmp_path / "alone", notify=told.append).final["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert any(str(each["message"]).startswith("closing weights to 50.0 %: layer 3 of ") for each in told)
    # A finished run stays, one that has lost its end is made again, and comparisons take what has one row.
    before = (run / "status.json").read_text()
    (tmp_path / "out" / "results_magnitude_sst2_sparsity50" / "status.json").unlink()
    assert main(["oneshot", *flags, "--resume"]) == 0
    assert (run / "status.json").read_text() == before
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "oneshot.csv"), table)
    assert main(["compare", *map(str, (tmp_path / "out").glob("results_*")), "-o", str(tmp_path / "compared")]) == 0
    assert len(pd.read_csv(tmp_path / "compared" / "comparison_summary.csv")) == 2


def test_dense_records_are_the_same_whatever_is_pruned_from_them(tmp_path):
    records = []
    for strategies in (("LayerMagWeight", "GlobalMagGrad"), ("GlobalMagGrad",)):
        settings = read_settings({"methods": strategies, "data": "embedded", "output": str(tmp_path)}, {}, {})
        records.append(oneshot_plans(plan_jobs(settings), [Point(sparsity=0.5)], 1)[0].jobs[0].config)
    assert records[0] == records[1] and records[0].criterion is None


@pytest.mark.parametrize("flags, message", [
    ((), "--compression: give it or --sparsities"),
    (("--compression", "2", "--sparsities", "64"), "--compression: give it or --sparsities"),
    (("--sparsities", "64", "--compression-of", "prunable"), "--compression-of: goes with --compression"),
    (("--compression", "inf"), "--compression: 'inf' is refused; allowed: numbers from 1 up"),
    (("--compression", "0.5"), "--compression: '0.5' is refused; allowed: numbers from 1 up"),
    (("--sparsities", "64,much"), "--sparsities: '64,much' is refused; allowed: percentages from 0 to 100"),
    (("--sparsities", "64", "--strategy", "baseline"), "--strategy: 'baseline' is refused"),
    (("--sparsities", "64", "--dense-epochs", "-1"), "--dense-epochs: -1 is refused"),
    (("--sparsities", "64", "--dense-epochs", "0"), "--dense-epochs: 0 needs -pt"),
    (("--sparsities", "64", "-e", "0"), "-e/--epochs: 0 needs -pt, or --dense-epochs"),
    (("--compression", "9"), "--compression: 9 is refused; allowed: 1 to"),
])  # fmt: skip
def test_what_is_refused(tmp_path, capsys, flags, message):
    assert oneshot(tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [
    {"one_shot": {"before": 3}}, {"one_shot": {"before": {"accuracy": "x"}}}, {"one_shot": {"after": {}}},
    {"one_shot": None}, {"one_shot": {}}, {"parameters": None}, {"parameters": {"total": 5}},
    {"parameters": {"total": 5, "remaining": 0}},
])  # fmt: skip
def test_a_finished_run_whose_metadata_lack_a_column_of_the_table_is_one_sentence(tmp_path, changes):
    folder = write_run(tmp_path, several=False)
    (path,) = folder.glob("metadata_*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"^{folder}.*(one_shot|parameters)"):
        table_row(read_run(folder))
