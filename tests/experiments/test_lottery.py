"""Lottery tickets: the weights they go back to, their masks and controls, and the command with its rounds."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs import run as run_module
from gated_bert.experiments.runs.checkpoint import CheckpointCallback
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.studies.lottery import round_sparsities
from gated_bert.models.folder import load_model
from gated_bert.pruning.criteria.magnitude import Magnitude
from tests.marks import nightly
from tests.pictures import is_drawn

ENCODER = 4 * 16 * 16 + 2 * 16 * 32


def config_of(method="magnitude", **options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32}
    recipe = {"epochs": 2, "batch_size": 16, "train_examples": 100, "max_len": 24, "learning_rate": 1e-2, "seed": 5}
    prune = {"schedule": "one_shot", "end_sparsity": 0.6, "pruning_start_epoch": 1, "pruning_end_epoch": 1}
    return GatedBertConfig(pruning_method=method, data="embedded", **{**sizes, **recipe, **prune, **options})


def weights_of(folder):
    """Every weight of a model folder by its path, gates apart."""
    return {
        variable.path: np.asarray(variable)
        for variable in load_model(folder).model.weights
        if variable.name != "gates"
    }  # fmt: skip


def gates_of(folder):
    return {layer.name: np.asarray(layer.gates) for layer in load_model(folder).model.gated_layers()}


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A dense run that keeps its initial weights."""
    return train(config_of("baseline", rewind_step=0), tmp_path_factory.mktemp("dense")).folder


def start_of(config, folder):
    """The run of `config` as it is before its first step."""
    run = run_module._Run(config, folder, False, None)
    run._prepare()
    return run


def ticket_of(dense, **options):
    return config_of(pretrained=str(dense / "model_initial"), ticket=str(dense / "model"), **options)


@pytest.fixture(scope="module")
def ticket(dense, tmp_path_factory):
    """The run of a magnitude ticket."""
    return train(ticket_of(dense), tmp_path_factory.mktemp("ticket")).folder


@pytest.mark.nightly
def test_initial_weights_are_those_before_training(dense, tmp_path):
    fresh = start_of(config_of("baseline"), tmp_path).model
    saved = weights_of(dense / "model_initial")
    assert {"embeddings", "position_embedding", "kernel", "bias", "gamma"} <= {name.split("/")[-1] for name in saved}
    for variable in fresh.weights:
        if variable.name != "gates":
            np.testing.assert_array_equal(saved[variable.path], np.asarray(variable), err_msg=variable.path)
    trained = weights_of(dense / "model")
    assert not np.array_equal(trained["bert_classifier/classifier/kernel"], saved["bert_classifier/classifier/kernel"])


def test_a_ticket_starts_from_the_initial_weights_bit_for_bit(dense, tmp_path):
    model = start_of(ticket_of(dense), tmp_path).model
    saved = weights_of(dense / "model_initial")
    for variable in model.weights:
        if variable.name != "gates":
            np.testing.assert_array_equal(saved[variable.path], np.asarray(variable), err_msg=variable.path)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_its_mask_closes_the_smallest_trained_weights(dense, tmp_path, scope):
    model = start_of(ticket_of(dense, scope=scope), tmp_path).model
    trained = load_model(dense / "model").model
    pairs = list(zip(model.gated_layers()[:6], trained.gated_layers()[:6], strict=True))
    sizes = [np.abs(np.asarray(layer.raw_kernel)) for _, layer in pairs]
    network = np.sort(np.concatenate([size.ravel() for size in sizes]))
    for (layer, _), size in zip(pairs, sizes, strict=True):
        ranked = network if scope == "global" else np.sort(size.ravel())
        np.testing.assert_array_equal(np.asarray(layer.gates) == 0, size < ranked[round(0.6 * len(ranked))])
    assert all((np.asarray(layer.gates) == 1).all() for layer in model.gated_layers()[6:])


def test_criteria_that_need_data_see_the_trained_model_and_the_training_data(dense, tmp_path, monkeypatch):
    seen = []

    def prepare(self, model, dataset):
        inputs, labels = dataset[0][:2]
        seen.append((np.asarray(model.gated_layers()[0].raw_kernel), float(model.test_on_batch(inputs, labels))))

    monkeypatch.setattr(Magnitude, "needs_data", True)
    monkeypatch.setattr(Magnitude, "prepare", prepare)
    start_of(ticket_of(dense), tmp_path)
    [(kernel, loss)] = seen
    trained = load_model(dense / "model").model.gated_layers()[0]
    np.testing.assert_array_equal(kernel, np.asarray(trained.raw_kernel))
    assert 0 < loss < 5


@pytest.mark.nightly
def test_the_random_control_is_as_sparse_in_every_matrix(dense, ticket, tmp_path):
    config = ticket_of(dense, scope="global").replace(ticket=str(ticket / "model"), ticket_control="random")
    one, again = (start_of(config, tmp_path).model for _ in range(2))
    saved, before = gates_of(ticket / "model"), weights_of(dense / "model_initial")
    for layer, other in zip(one.gated_layers()[:6], again.gated_layers(), strict=False):
        gates = np.asarray(layer.gates)
        assert gates.sum() == saved[layer.name].sum()
        # Two random masks of 60 % share 36 % of the positions; the same ones would share 60 %.
        assert np.mean((gates == 0) & (saved[layer.name] == 0)) == pytest.approx(0.36, abs=0.1)
        np.testing.assert_array_equal(gates, np.asarray(other.gates))
        np.testing.assert_array_equal(np.asarray(layer.raw_kernel), before[layer.raw_kernel.path])
    assert not np.array_equal(
        gates, np.asarray(start_of(config.replace(seed=6), tmp_path).model.gated_layers()[5].gates)
    )


def test_units_of_a_pattern_stay_whole_in_the_random_control(dense, tmp_path):
    config = ticket_of(dense, pattern="head", end_sparsity=0.5)
    ticket = start_of(config, tmp_path)
    ticket.folder.save("model", ticket.model, row={})
    control = start_of(config.replace(ticket=str(tmp_path / "model"), ticket_control="random"), tmp_path)
    for layer in control.model.gated_layers(("query", "key", "value")):
        columns = np.asarray(layer.gates).all(0)
        assert (np.asarray(layer.gates) == columns).all() and columns.sum() == 8
        assert columns[:8].all() or columns[8:].all()
    with pytest.raises(ConfigError, match="units exist only by their scores"):
        ticket_of(dense, pattern="vector", ticket_control="random")


@pytest.mark.nightly
def test_the_reinitialized_control_keeps_the_mask_alone(dense, ticket, tmp_path):
    config = ticket_of(dense).replace(ticket=str(ticket / "model"), ticket_control="reinitialized")
    model = start_of(config, tmp_path).model
    saved, before = gates_of(ticket / "model"), weights_of(dense / "model_initial")
    for layer in model.gated_layers():
        np.testing.assert_array_equal(np.asarray(layer.gates), saved[layer.name])
    for variable in model.weights:
        if variable.name in ("kernel", "embeddings", "position_embedding"):
            drawn = np.asarray(variable)
            assert (drawn != before[variable.path]).mean() > 0.99
            assert drawn.std() == pytest.approx(before[variable.path].std(), rel=0.5)


def test_closed_weights_stay_closed_and_every_row_says_how_many(dense, ticket, tmp_path):
    begun = start_of(ticket_of(dense), tmp_path).model
    for layer in begun.gated_layers():
        np.testing.assert_array_equal(np.asarray(layer.gates), gates_of(ticket / "model")[layer.name])
    run = read_run(ticket)
    np.testing.assert_allclose(run.rows["sparsity"], [0.6, 0.6], atol=1e-3)
    assert run.rows["target_sparsity"].tolist() == [0.6, 0.6]
    removed = run.metadata["parameters"]["total"] - run.metadata["parameters"]["remaining"]
    assert removed == round(run.rows["sparsity"].iloc[-1] * ENCODER)
    trained, initial = weights_of(ticket / "model"), weights_of(dense / "model_initial")
    assert not np.array_equal(trained["bert_classifier/classifier/bias"], initial["bert_classifier/classifier/bias"])


@pytest.mark.nightly
@pytest.mark.parametrize("step", [nightly(3), 7, nightly(9)])
def test_rewinding_to_a_step_gives_the_weights_of_that_step(tmp_path, monkeypatch, step):
    """Seven steps an epoch; the reference is what the checkpoint callback sees after the step."""
    seen = {}
    whole = CheckpointCallback.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        whole(self, batch, logs)
        if self.epoch * 7 + batch + 1 == step:
            seen.update({variable.path: np.array(variable) for variable in self.model.weights})

    monkeypatch.setattr(CheckpointCallback, "on_train_batch_end", on_train_batch_end)
    train(config_of("baseline", rewind_step=step), tmp_path)
    saved = weights_of(tmp_path / "model_initial")
    for path, array in saved.items():
        np.testing.assert_array_equal(array, seen[path], err_msg=path)
    last = weights_of(tmp_path / "model")
    assert not np.array_equal(last["bert_classifier/classifier/bias"], saved["bert_classifier/classifier/bias"])


def test_a_step_after_the_last_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="rewind_step: 14 is refused; allowed: 0 to 13"):
        train(config_of("baseline", rewind_step=14), tmp_path)


@pytest.mark.nightly
def test_a_resumed_ticket_keeps_the_mask_of_its_checkpoint(dense, tmp_path, monkeypatch):
    class Stopped(run_module.EpochCallback):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch)
            if epoch == 1:
                raise KeyboardInterrupt

    ticket = tmp_path / "scored"
    shutil.copytree(dense / "model", ticket)
    config = ticket_of(dense).replace(ticket=str(ticket))
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "EpochCallback", Stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    shutil.rmtree(ticket)
    assert train(config, tmp_path / "run", resume=True).final["epoch"] == 2
    trained = load_model(dense / "model").model.gated_layers()[0]
    size = np.abs(np.asarray(trained.raw_kernel))
    closed = size < np.sort(size.ravel())[round(0.6 * size.size)]
    np.testing.assert_array_equal(gates_of(tmp_path / "run" / "model")[trained.name] == 0, closed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pruning_method": "movement"},
            "pruning_method: 'movement' is refused; allowed: for a lottery ticket one that",
        ),
        ({"pruning_method": "baseline"}, "not baseline"),
        ({"pretrained": None}, "pretrained: None is refused"),
        ({"ticket_control": "shuffled"}, "random, reinitialized"),
        ({"ticket": None, "ticket_control": "random"}, "None without a ticket"),
        ({"rewind_step": -1}, "rewind_step: -1"),
    ],
)
def test_what_a_record_refuses(options, message):
    values = {"pruning_method": "magnitude", "pretrained": "initial", "ticket": "trained", **options}
    with pytest.raises(ConfigError, match=message):
        GatedBertConfig(**values)


def test_rounds_remove_equal_shares_of_what_remains():
    assert round_sparsities(3, None, 0.1) == (0.1, 0.19, 0.271)
    assert round_sparsities(2, 0.75, 0.1) == (0.5, 0.75)
    assert round_sparsities(1, 0.64, 0.1) == (0.64,)


SMALL = (
    "-d embedded -t sst2 -m tiny --num-layers 1 --d-model 16 --num-heads 2 --dff 32 -e 1 -b 32 -l 1e-3 -ml 24 "
    "--train-examples 64 --output-mode logs -max-parallel-jobs 2"
).split()


@pytest.mark.slow
@pytest.mark.nightly
def test_the_command_runs_rounds_and_controls_and_goes_on(jobs_here, tmp_path, capsys):
    words = ["lottery", *SMALL, "--rounds", "2", "-f", "0.75", "-o", str(tmp_path)]
    assert main(words) == 0
    table = pd.read_csv(tmp_path / "lottery.csv")
    assert table["kind"].tolist() == ["dense", "ticket", "ticket", "random", "reinitialized"]
    assert table["round"].tolist() == [0, 1, 2, 2, 2]
    np.testing.assert_allclose(table["sparsity"], [0, 0.5, 0.75, 0.75, 0.75], atol=2e-3)
    assert table["mac_reduction"].iloc[0] == 0 and (table["mac_reduction"].iloc[1:] > 0.2).all()
    assert len(pd.read_csv(tmp_path / "lottery_summary.csv")) == 5
    assert is_drawn(tmp_path / "lottery.png")
    first, second, random, fresh = (
        gates_of(tmp_path / part / "results_magnitude_sst2" / "model")["encoder_0_query"]
        for part in ("round_01", "round_02", "control_random", "control_reinitialized")
    )
    assert (second <= first).all() and (fresh == second).all()
    assert random.sum() == second.sum() and (random != second).any()
    record = json.loads((tmp_path / "round_02" / "results_magnitude_sst2" / "job.json").read_text())
    assert record["pretrained"].endswith("dense/results_baseline_sst2/model_initial")
    assert record["ticket"].endswith("round_01/results_magnitude_sst2/model")
    shutil.rmtree(tmp_path / "round_02")
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert capsys.readouterr().out.count("skipped") == 4
    again = pd.read_csv(tmp_path / "lottery.csv")
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-p movement", "-p/--pruning-methods: 'movement' is refused; allowed: for a lottery ticket one that ranks"),
        ("--rounds 0", "--rounds: 0 is refused; allowed: a whole number from 1 to 1000"),
        ("--round-share 0.2", "--round-share: goes with --rounds"),
        ("--rounds 2 --round-share 0.2 -f 0.5", "--round-share: goes with --rounds, and without -f"),
        ("--rounds 2 --round-share 20", "--round-share: 20.0 is refused; allowed: a number between 0 and 1"),
        ("-f 1.0", "-f/--end-sparsity: 1.0 is refused"),
        ("--rewind-step -1", "--rewind-step: -1 is refused"),
        ("--controls none,random", "--controls: 'none random' is refused"),
        ("--controls other", "--controls: 'other' is refused; allowed: random, reinitialized, none"),
        ("--pattern vector", "--controls: 'random' is refused; allowed: reinitialized; with pattern vector"),
        ("-ss 10,20", "-ss: unknown flag"),
    ],
)
def test_what_the_command_refuses(tmp_path, capsys, words, message):
    assert main(["lottery", *SMALL, "-o", str(tmp_path), *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out and not list(tmp_path.iterdir())


def test_a_dry_run_names_every_part_and_methods_share_the_dense_run(tmp_path, capsys):
    words = ["-p", "magnitude,random", "--rounds", "3", "--dry-run", "-o", str(tmp_path / "out")]
    assert main(["lottery", *SMALL, *words]) == 0
    out = capsys.readouterr().out
    assert "3, to 10, 19, 27.1 % sparsity" in out
    parts = ["dense", "round_01", "round_02", "round_03", "control_random", "control_reinitialized"]
    assert [out.count(f"/{part}/") for part in parts] == [1, 2, 2, 2, 2, 2]
    assert not (tmp_path / "out").exists()
