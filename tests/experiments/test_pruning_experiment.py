"""`PruningExperiment`: the published names, frozen parameters, the folder of their digest, the files."""

import dataclasses
import json

import pandas as pd
import pytest

import gated_bert
from gated_bert.models.folder import load_model
from gated_bert.support.errors import UserError
from tests.marks import nightly

TINY = {"epochs": 1, "num_layers": 1, "d_model": 32, "dff": 64, "train_examples": 96, "max_len": 16}


def experiment(**changes):
    values = {"dataset": "SST2DATA", "model": "BertNet", "strategy": "magnitude", "compression": 2} | changes
    return gated_bert.PruningExperiment(**values)


def test_the_published_names_stand_for_these_runs():
    config = experiment(dataset="COLADATA", train_kwargs={"epochs": 10}, is_LTH=True).config()
    assert (config.task, config.pretrained, config.epochs, config.batch_size) == ("cola", "bert-base-uncased", 10, 32)
    assert (config.learning_rate, config.optimizer, config.data) == (2e-5, "adamw", "hub")
    assert "pooler" in config.prunable_roles and "classifier" not in config.prunable_roles
    config = experiment(dataset="STSBDATA", model="BertModelSTSB", train_kwargs={"optim": "SGD", "lr": 0.1}).config()
    assert (config.task, config.optimizer, config.learning_rate) == ("stsb", "sgd", 0.1)


def test_parameters_are_frozen_and_their_digest_names_the_folder(monkeypatch):
    one = experiment()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.compression = 4
    assert one.folder.parts == ("results", one.digest) and len(one.digest) == 32
    assert experiment(train_kwargs={"epochs": 3}).digest == one.digest
    assert len({one.digest, experiment(compression=4).digest, experiment(seed=1).digest}) == 3
    assert experiment(path="elsewhere").folder.name == "elsewhere"
    monkeypatch.setenv("DATAPATH", "embedded")
    assert experiment().config().data == "embedded"


@pytest.mark.parametrize("changes, message", [
    ({"dataset": "SST2DAT"}, "dataset: 'SST2DAT' is refused; allowed: SST2DATA, COLADATA, STSBDATA, sst2"),
    ({"model": "ResNet"}, "model: 'ResNet' is refused; allowed: BertNet, BertModelSTSB, tiny"),
    ({"dataset": "STSBDATA"}, "model: BertNet has no head for STSBDATA; allowed: BertModelSTSB, tiny"),
    ({"dataset": "ag_news"}, "model: BertNet has no head for ag_news; allowed: tiny"),
    ({"strategy": "movement"}, "strategy: 'movement' is refused; allowed: magnitude"),
    ({"compression": 0.5}, "compression: 0.5 is refused; allowed: a number from 1 up"),
    ({"dl_kwargs": {"num_workers": 8}}, "dl_kwargs: 'num_workers' is refused; allowed: batch_size"),
    ({"train_kwargs": {"ticket": "x"}}, "train_kwargs: 'ticket' is refused; allowed: .*epochs"),
    ({"train_kwargs": {"optim": "RMSprop"}}, "optim: 'RMSprop' is refused; allowed: Adam, AdamW, SGD"),
])  # fmt: skip
def test_what_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        experiment(**changes)


@pytest.mark.slow
@pytest.mark.parametrize("ticket", [False, nightly(True)])
def test_a_run_writes_its_files_and_is_not_repeated(tmp_path, monkeypatch, ticket):
    monkeypatch.chdir(tmp_path)
    one = experiment(model="tiny", compression=1.2, pretrained=False, data="embedded", train_kwargs=TINY, is_LTH=ticket)
    metrics = one.run()
    assert metrics == json.loads((one.folder / "metrics.json").read_text())
    assert json.loads((one.folder / "params.json").read_text()) == one.params
    assert metrics["compression_ratio"] == pytest.approx(1.2, abs=1e-3) == metrics["size"] / metrics["size_nz"]
    assert metrics["theoretical_speedup"] == metrics["flops"] / metrics["flops_nz"] > 3
    logs = pd.read_csv(one.folder / "logs.csv")
    assert list(logs["epoch"]) == [0, 1]
    assert [logs["val_loss"][0], logs["val_loss"][1]] == [metrics[name]["loss"] for name in ("after", "final")]
    assert set(metrics["before"]) == {"loss", "accuracy"}
    assert (one.folder / "dense").exists() == ticket
    pruned = one.folder / "pruned" / "model" / "model.keras"
    written = pruned.stat().st_mtime_ns
    assert one.run() == metrics and pruned.stat().st_mtime_ns == written
    if ticket:
        # The mask is that of the trained weights, the weights were the initial ones.
        trained = load_model(one.folder / "dense" / "model").model.gated_layers(("query",))[0]
        kept = load_model(one.folder / "pruned" / "model").model.gated_layers(("query",))[0]
        closed = kept.mask_variable.numpy() == 0
        size = abs(trained.raw_kernel.numpy())
        assert size[closed].max() <= size[~closed].min()
    with pytest.raises(UserError, match="holds an experiment with other parameters"):
        dataclasses.replace(one, path=one.folder, seed=7).run()


def test_an_unreachable_compression_is_refused_before_training(tmp_path):
    one = experiment(model="tiny", pretrained=False, data="embedded", compression=9, path=tmp_path)
    with pytest.raises(UserError, match="--compression: 9 is refused; allowed: 1 to 4.88"):
        one.run()
    assert not (tmp_path / "pruned").exists()


def test_what_train_kwargs_say_counts_or_is_refused():
    """The pattern and the scope of the run are those asked for; the size of the model is said by `model`."""
    kwargs = {"pattern": "head", "scope": "global", "warmup_ratio": 0.2}
    given = ("SST2DATA", "tiny", "LayerMagWeight", 1.5)
    dense = gated_bert.PruningExperiment(*given, train_kwargs=kwargs, pretrained=False).config()
    at_once = {"schedule": "one_shot", "pruning_start_epoch": 1, "pruning_end_epoch": 1}
    pruned = dense.replace(pruning_method="LayerMagWeight", end_sparsity=0.5, **at_once)
    assert (pruned.pattern, pruned.scope, pruned.warmup_ratio, pruned.model_size) == ("head", "global", 0.2, "tiny")
    assert pruned.enable_pruning and pruned.criterion == "magnitude"
    with pytest.raises(UserError, match="train_kwargs: 'model_size' is refused"):
        gated_bert.PruningExperiment(*given, train_kwargs={"model_size": "base"})
