"""TensorBoard, MLflow and Weights & Biases as places that follow a run: each a class with `begin`, `log` and `end`."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gated_bert.experiments.reports.run_layout import TENSORBOARD
from gated_bert.experiments.runs.lifecycle import FAILED, FINISHED
from gated_bert.support.disk import own
from gated_bert.support.paths import MOVED_VARIABLE

PROJECT = "gated_bert"
"""Experiment of MLflow and project of W&B where the environment names no other."""
ANSWER_SECONDS = 30
_LONGEST_PARAMETER = 500
_MOST_AT_ONCE = 100


@dataclass(frozen=True)
class Followed:
    """A run, or a sweep, as a tracker is told of it.

    Attributes:
        folder: its folder, absolute.
        home: that of its sweep.
        fields: its configuration, one value each.
        about: all that its metadata say.
        run: the tracker's own name of it where it goes on with one.
        parent: the same of the sweep that it is a part of.
        group: what the runs of one sweep have in common.
    """

    folder: Path
    home: Path
    fields: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    run: str | None = None
    parent: str | None = None
    group: str | None = None


class Tracker(Protocol):
    """A place that follows a run. Whatever its methods raise ends the following, and nothing else."""

    def begin(self, run: Followed) -> str:
        """Opens the tracked run, an earlier one where `run.run` names it; returns the tracker's own name of it."""

    def log(self, row: Mapping[str, float]) -> None:
        """Takes in an epoch's row: column → value."""

    def end(self, state: str, files: Sequence[Path], model: Path | None) -> None:
        """Closes the tracked run.

        Args:
            state: finished, stopped or failed.
            files: pictures, tables and pages that were made of it.
            model: the model folder, whose path alone is told.
        """


class TensorBoard:
    """Event files in the run's folder. A run that goes on adds a file, which TensorBoard shows as the same run."""

    def begin(self, run: Followed) -> str:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = _own_place(run.folder / TENSORBOARD)
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000:017d}.{socket.gethostname()}.{os.getpid()}"
        self._event, self._epoch = Event, 0
        # Its own writer of files would import TensorFlow where that is installed.
        self._records = RecordWriter(open(own(folder / name), "wb"))  # noqa: SIM115 -- closed by `end`
        self._write(file_version="brain.Event:2")
        if run.run is None:
            self._write_text("configuration", _markdown(run.fields))
        return folder.name

    def log(self, row: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._epoch = int(row["epoch"])
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
        self._write(summary=Summary(value=values))

    def end(self, state: str, files: Sequence[Path], model: Path | None) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        for path in files:
            if path.suffix == ".png":
                content = path.read_bytes()
                # Width and height stand at a fixed place of a PNG.
                width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
                image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
                self._write(summary=Summary(value=[Summary.Value(tag=_untimed(path), image=image)]))
        if model is not None:
            self._write_text("model folder", str(model))
        self._records.close()

    def _write(self, **content: Any):
        event = self._event(wall_time=time.time(), step=self._epoch, **content)
        self._records.write(event.SerializeToString())
        self._records.flush()

    def _write_text(self, tag: str, text: str):
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode("utf-8", "backslashreplace")])
        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._write(summary=Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=kind)]))


class MLflow:
    """A run of the MLflow server that `MLFLOW_TRACKING_URI` names, else of an SQLite file beside the run's folder."""

    def begin(self, run: Followed) -> str:
        for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", str(ANSWER_SECONDS // 3))):
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri and MOVED_VARIABLE in os.environ:
            raise RuntimeError("this node shares no disk; MLFLOW_TRACKING_URI has to name a server")
        if not uri and "?" in str(run.home):
            raise RuntimeError(f"{run.home}: no address of a database takes a question mark; set MLFLOW_TRACKING_URI")
        self._client = MlflowClient(uri or f"sqlite:///{_own_place(run.home / 'mlflow.db')}")
        if run.run is not None:
            self._client.update_run(run.run, status="RUNNING")
            self._run = run.run
            return self._run
        tags = {"mlflow.runName": run.folder.name, "folder": str(run.folder)}
        if run.parent is not None:
            tags["mlflow.parentRunId"] = run.parent
        artifacts = None if uri else _own_place(run.home / "mlflow").as_uri()
        self._run = self._client.create_run(self._experiment(artifacts), tags=tags).info.run_id
        self._log_configuration(run)
        return self._run

    def _experiment(self, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given:
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, artifacts)
            except MlflowException:
                # Another run may just have made it.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def _log_configuration(self, run: Followed):
        from mlflow.entities import Param

        parameters = [Param(name, _text(value)[:_LONGEST_PARAMETER]) for name, value in run.fields.items()]
        for start in range(0, len(parameters), _MOST_AT_ONCE):
            self._client.log_batch(self._run, params=parameters[start : start + _MOST_AT_ONCE])
        if run.about:
            self._client.log_dict(self._run, dict(run.about), "metadata.json")

    def log(self, row: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now, epoch = int(1000 * time.time()), int(row["epoch"])
        values = [Metric(name, value, now, epoch) for name, value in row.items() if name != "epoch"]
        self._client.log_batch(self._run, metrics=values)

    def end(self, state: str, files: Sequence[Path], model: Path | None) -> None:
        for path in files:
            self._client.log_artifact(self._run, str(path))
        if model is not None:
            self._client.set_tag(self._run, "model_folder", str(model))
        self._client.set_terminated(self._run, {FINISHED: "FINISHED", FAILED: "FAILED"}.get(state, "KILLED"))


class WeightsAndBiases:
    """A run of W&B; where nobody is logged in, in its offline mode, whose files are in the run's folder."""

    def begin(self, run: Followed) -> str:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        _own_place(run.folder / "wandb")
        mode: Any = os.environ.get("WANDB_MODE") or (None if wandb.login(prompt=False, verify=False) else "offline")
        self._run = wandb.init(
            id=run.run or uuid.uuid4().hex[:12], resume="allow", group=run.group, dir=str(run.folder), mode=mode,
            project=os.environ.get("WANDB_PROJECT") or PROJECT, name=run.folder.name, reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, init_timeout=ANSWER_SECONDS,
                                    finish_timeout=ANSWER_SECONDS, disable_git=True),
        )  # fmt: skip
        self._run.config.update(dict(run.fields), allow_val_change=True)
        # Epochs count from one start of a run to the next, steps do not.
        self._run.define_metric("*", step_metric="epoch")
        return str(self._run.id)

    def log(self, row: Mapping[str, float]) -> None:
        self._run.log(dict(row))

    def end(self, state: str, files: Sequence[Path], model: Path | None) -> None:
        import wandb

        pictures = {_untimed(path): wandb.Image(str(path)) for path in files if path.suffix == ".png"}
        if pictures:
            self._run.log(pictures)
        if model is not None:
            self._run.summary["model_folder"] = str(model)
        self._run.finish(exit_code=int(state != FINISHED))


MAKERS: Mapping[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}


def _own_place(path: Path) -> Path:
    """The path; a link in its place, which may be a stranger's, is refused."""
    if path.is_symlink():
        raise OSError(f"{path} is a link, which is not followed; remove it")
    return path


def _untimed(path: Path) -> str:
    """A picture's name without the method and the time that follow what it shows: `accuracy_sparsity`."""
    return path.stem.partition("_sparsity_")[0] + "_sparsity" * ("_sparsity_" in path.stem)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _markdown(fields: Mapping[str, Any]) -> str:
    rows = (f"| {name} | {_text(value)} |" for name, value in fields.items())
    return "\n".join(("| field | value |", "| --- | --- |", *rows))
