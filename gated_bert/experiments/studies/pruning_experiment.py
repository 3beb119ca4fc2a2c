"""`PruningExperiment`, as people know it from ShrinkBench."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gated_bert.config import GatedBertConfig
from gated_bert.config.launcher_options import LauncherOptions
from gated_bert.config.methods import OF_TRAINED_MODELS
from gated_bert.config.presets import PRESETS
from gated_bert.experiments.reports.results import Run, read_run
from gated_bert.experiments.reports.run_layout import INITIAL_MODEL, LOG_FILE, MODEL
from gated_bert.experiments.studies.oneshot import PRUNABLE_ROLES, Point, model_sizes
from gated_bert.experiments.studies.oneshot_table import SPARSITIES
from gated_bert.experiments.sweeps.jobs import Job, Plan, job_command
from gated_bert.experiments.sweeps.request import Settings
from gated_bert.experiments.sweeps.sweep import sweep
from gated_bert.support.checks import did_you_mean
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_csv_atomic, write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.tasks.task import TASKS

DATASETS = {"SST2DATA": "sst2", "COLADATA": "cola", "STSBDATA": "stsb"}
MODELS = {"BertNet": ("sst2", "cola"), "BertModelSTSB": ("stsb",)}
"""The published models, both bert-base-uncased, and the tasks they have a head for."""
PRETRAINED = "bert-base-uncased"
_OPTIMIZERS = {"Adam": "adam", "AdamW": "adamw", "SGD": "sgd"}
_TRAIN = {"epochs": 3, "lr": 2e-5, "optim": "AdamW"}
_DECIDED = {
    "task", "data", "pretrained", "seed", "batch_size", "learning_rate", "optimizer", "pruning_method", "criterion",
    "schedule", "start_sparsity", "end_sparsity", "pruning_start_epoch", "pruning_end_epoch", "sparsity_steps",
    "pruning_every", "pruning_warmup", "pruning_cooldown", "rewind_step", "ticket", "ticket_control",
    "enable_pruning", "model_size",
}  # fmt: skip


@dataclass(frozen=True)
class PruningExperiment:
    """Prunes a model at once by a strategy to a compression, fine-tunes it, and writes what ShrinkBench's class does.

    Its parameters are frozen; the folder is named by their digest, so that the same experiment is not run twice and
    goes on where it was stopped. In it: `params.json`, `metrics.json`, `logs.csv` (a row per epoch; epoch 0 is right
    after pruning) and the run folders.

    Args:
        dataset: SST2DATA, COLADATA or STSBDATA, or the name of a task.
        model: BertNet or BertModelSTSB (bert-base-uncased with the dataset's head), or the name of a preset.
        strategy: what ranks the weights, e.g. LayerGradCAMShift.
        compression: all parameters ÷ those left; 1 prunes nothing.
        seed: seed of the run.
        path: folder; by default `results/` and the digest.
        dl_kwargs: `batch_size` (default 32).
        train_kwargs: `epochs` (3), `lr` (2e-5), `optim` (Adam, AdamW or SGD; AdamW), and further fields of
            `GatedBertConfig`. ShrinkBench's own defaults (SGD, 1e-3) do not fine-tune a BERT.
        is_LTH: whether the model is a lottery ticket: trained dense, scored, set back to its initial weights, masked
            and trained again; else the weights are scored and pruned as they are loaded.
        pretrained: True: the published weights; False: random ones; else a Hugging Face id or a folder.
        data: `hub`, `embedded` or a folder of official files; by default the environment's DATAPATH, else `hub`.

    Raises:
        UserError: a parameter that is not allowed.

    Paper: Blalock et al. 2020, What is the State of Neural Network Pruning? (https://arxiv.org/abs/2003.03033).
    """

    dataset: str
    model: str
    strategy: str
    compression: float
    seed: int = 42
    path: str | os.PathLike | None = None
    dl_kwargs: Mapping[str, Any] = field(default_factory=dict)
    train_kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_LTH: bool = False
    pretrained: bool | str = True
    data: str | None = None

    def __post_init__(self):
        _choose("dataset", self.dataset, (*DATASETS, *TASKS))
        _choose("model", self.model, (*MODELS, *PRESETS))
        _choose("strategy", self.strategy, OF_TRAINED_MODELS)
        fitting = [name for name in (*MODELS, *PRESETS) if self._task in MODELS.get(name, TASKS)]
        if self.model not in fitting:
            raise UserError(f"model: {self.model} has no head for {self.dataset}; allowed: {', '.join(fitting)}")
        if not isinstance(self.compression, int | float) or not self.compression >= 1:
            raise UserError(f"compression: {self.compression!r} is refused; allowed: a number from 1 up")
        fields = {each.name for each in dataclasses.fields(GatedBertConfig)} - _DECIDED
        for name, given, allowed in (
            ("dl_kwargs", self.dl_kwargs, {"batch_size"}),
            ("train_kwargs", self.train_kwargs, _TRAIN.keys() | fields),
        ):
            for key in given:
                _choose(name, key, sorted(allowed))
        _choose("optim", self._training["optim"], tuple(_OPTIMIZERS))

    @property
    def _task(self) -> str:
        return DATASETS.get(self.dataset, self.dataset)

    @property
    def _training(self) -> dict[str, Any]:
        return {**_TRAIN, **self.train_kwargs}

    @property
    def params(self) -> dict[str, Any]:
        """All that decides the result, with defaults filled in."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "path"}
        values["dl_kwargs"] = {"batch_size": 32, **self.dl_kwargs}
        values["train_kwargs"] = self._training
        values["data"] = self.data or os.environ.get("DATAPATH") or "hub"
        return values

    @property
    def digest(self) -> str:
        """MD5 of the parameters, hexadecimal."""
        return hashlib.md5(json.dumps(self.params, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(self.path) if self.path else Path("results") / self.digest

    def __repr__(self) -> str:
        return json.dumps(self.params, indent=4)

    def config(self) -> GatedBertConfig:
        """The record of a run that trains as the parameters say, without pruning."""
        params, training = self.params, self._training
        pretrained = self.pretrained if isinstance(self.pretrained, str) else PRETRAINED if self.pretrained else None
        others = {name: value for name, value in training.items() if name not in _TRAIN}
        return GatedBertConfig(
            **{"prunable_roles": PRUNABLE_ROLES} | others, model_size="base" if self.model in MODELS else self.model,
            task=self._task, data=params["data"], seed=self.seed, pretrained=pretrained,
            batch_size=params["dl_kwargs"]["batch_size"], epochs=training["epochs"], learning_rate=training["lr"],
            optimizer=_OPTIMIZERS[training["optim"]], pruning_method="baseline",
        )  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Runs what is left of the experiment.

        Returns:
            What `metrics.json` holds: `size` and `size_nz` (parameters, and those not closed), `compression_ratio`,
            weight `sparsity`, `flops` and `flops_nz` (multiply-accumulates of a sequence of `max_len` tokens, and those
            of open weights), `theoretical_speedup`, and loss and metrics: `before` pruning, right `after` it, `final`.

        Raises:
            UserError: an unreachable compression, data or weights that cannot be used, or a folder of other parameters.
        """
        self._write_params()
        dense = self.config()
        point = Point(compression=self.compression)
        sparsity = point.sparsity_in(*model_sizes(dense), per_dimension=dense.sparsity_per_dim)
        changes = {
            "pruning_method": self.strategy, "schedule": "one_shot", "start_sparsity": 0.0, "end_sparsity": sparsity,
            "pruning_start_epoch": 1, "pruning_end_epoch": 1,
        }  # fmt: skip
        trained = None
        if self.is_LTH:
            trained = self._train(dense.replace(rewind_step=0), "dense")
            models = {"pretrained": INITIAL_MODEL, "ticket": MODEL}
            changes |= {name: str((trained.folder / model).resolve()) for name, model in models.items()}
        return self._write_results(self._train(dense.replace(**changes), "pruned"), trained)

    def _train(self, config: GatedBertConfig, name: str) -> Run:
        """A run in a process of its own, with its progress; one that is finished is read."""
        folder = self.folder / name
        settings = Settings({}, frozenset(), (), (), (), self.folder, LauncherOptions(resume=True))
        job = Job(f"{self.strategy} {name}", config, folder, job_command(folder))
        if sweep(Plan(settings, (job,)), compared=False):
            raise UserError(f"{folder}: the run did not finish; {folder / LOG_FILE} says why")
        return read_run(folder)

    def _write_params(self):
        path, params = self.folder / "params.json", json.loads(json.dumps(self.params))
        if path.exists() and read_record(path, tolerant=True) != params:
            raise UserError(f"path: {self.folder} holds an experiment with other parameters; choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, params)

    def _write_results(self, run: Run, trained: Run | None) -> dict[str, Any]:
        metadata = run.metadata
        parameters, macs, length = metadata["parameters"], metadata["macs_per_token"], metadata["config"]["max_len"]
        scores = {
            "before": _scores(trained.rows.iloc[-1]) if trained else metadata["one_shot"]["before"],
            "after": metadata["one_shot"]["after"],
            "final": _scores(run.rows.iloc[-1]),
        }
        metrics = {
            "size": parameters["total"], "size_nz": parameters["remaining"],
            "compression_ratio": parameters["total"] / parameters["remaining"],
            **{name: float(run.rows[name].iloc[-1]) for name in SPARSITIES},
            "flops": macs["dense"]["total"] * length, "flops_nz": macs["open"]["total"] * length,
            "theoretical_speedup": macs["dense"]["total"] / macs["open"]["total"], **scores,
        }  # fmt: skip
        write_json_atomic(self.folder / "metrics.json", metrics)
        first = {"epoch": 0, **{name: metrics[name] for name in SPARSITIES}}
        first |= {f"val_{name}": value for name, value in scores["after"].items()}
        write_csv_atomic(self.folder / "logs.csv", [first, *run.rows.to_dict("records")])
        return metrics


def _scores(row: Mapping) -> dict[str, float]:
    return {name.removeprefix("val_"): float(value) for name, value in row.items() if name.startswith("val_")}


def _choose(name: str, value: object, allowed: Sequence[str]):
    if value not in allowed:
        hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise UserError(f"{name}: {value!r} is refused; allowed: {', '.join(allowed)}{hint}")
