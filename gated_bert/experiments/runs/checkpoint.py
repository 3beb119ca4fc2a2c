"""Checkpoints that a killed run goes on from exactly: variables, optimiser, metrics, masks, criterion and place."""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
from keras import ops

from gated_bert.experiments.reports.run_layout import CHECKPOINT
from gated_bert.experiments.runs.run_files import rest_after
from gated_bert.pruning.callbacks import StepCallback
from gated_bert.pruning.criteria import Criterion
from gated_bert.support.arrays import DAMAGED, read_npz
from gated_bert.support.backend import assign_on_devices, values_on_devices
from gated_bert.support.checks import MOST, number, shown, whole
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.files import replaced_file
from gated_bert.support.records import parse_record
from gated_bert.support.schemas import Place, Reached

_STAMP = re.compile(r"\d{8}-\d{6}", re.ASCII)


def _arrays(model: keras.Model, criterion, place: dict) -> Iterator[tuple[str, np.ndarray]]:
    """Everything that a run's next step depends on, by name, one array after the other."""
    yield "place", np.array(json.dumps(place))
    for name, variables in _variables(model).items():
        for i, variable in enumerate(variables):
            yield f"{name}/{i}", ops.convert_to_numpy(variable)
    for i, variable in enumerate(model.metrics_variables):
        yield f"metrics/{i}", values_on_devices(variable)
    for name, array in criterion.state().items() if criterion is not None else ():
        yield f"criterion/{name}", np.asanyarray(array)


def _variables(model: keras.Model) -> dict[str, list]:
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def write_checkpoint(path: Path, model: keras.Model, criterion: Criterion | None, place: dict) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: the file.
        model: the compiled model.
        criterion: the criterion, or None.
        place: JSON-able: `epoch` (from 0), `batches` done in it, and what else the caller wants back.
    """
    # As `np.savez` writes them, but without a copy of all of them in memory.
    with replaced_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in _arrays(model, criterion, place):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def stored_place(file: Path | BinaryIO) -> dict | None:
    """What a checkpoint says of its run, `epoch` and `batches` at least; None of a missing or damaged one."""
    try:
        return _place_in(read_npz(file, ("place",)), Reached)
    except (UserError, *DAMAGED):
        return None


def read_place(file: Path | BinaryIO) -> tuple[int, int] | None:
    """Epochs, and batches of the next one, that a checkpoint's run has done; None of a missing or damaged one."""
    place = stored_place(file)
    return None if place is None else (place["epoch"], place["batches"])


def _place_in(arrays: dict[str, np.ndarray], schema: type) -> dict:
    remedy = "not where a run stood"
    return parse_record(str(arrays.pop("place")), schema, where="place", remedy=remedy, nan=True, lines=False)


class Checkpoint:
    """A checkpoint read from disk.

    Args:
        path: the file.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._arrays = read_npz(path)
            self.place = _place_in(self._arrays, Place)
            # The stamp becomes a part of files' names.
            if not _STAMP.fullmatch(self.place["stamp"]):
                raise UserError(f"place: stamp {shown(self.place['stamp'])} is no time")
            for name in ("epoch", "batches"):
                whole(f"place: {name}", self.place[name], 0)
            number("place: seconds", self.place["seconds"], 0, MOST)
        except (UserError, *DAMAGED) as error:
            raise UserError(f"{path}: damaged checkpoint ({one_line(error)})") from error

    def check_within(self, epochs: int, steps: int) -> None:
        """Refuses a place that is none of a run of so many epochs of so many steps.

        Raises:
            UserError: one of these.
        """
        place = self.place
        if place["epoch"] > epochs or place["batches"] >= steps or len(place["rows"]) != place["epoch"]:
            raise self._of_another()

    def _of_another(self) -> UserError:
        return UserError(f"{self.path}: was written by another model or run; remove this file, and --resume starts the "
                         "run afresh")  # fmt: skip

    def restore(self, model: keras.Model, criterion: Criterion | None) -> None:
        """Puts variables, optimiser and criterion back, once; `model` must be compiled and its optimiser built."""
        for name, variables in _variables(model).items():
            for i, variable in enumerate(variables):
                variable.assign(self._saved(f"{name}/{i}", variable.shape))
        if criterion is not None:
            prefix = "criterion/"
            # What a criterion first remembers during training it cannot name yet.
            shapes = {name.removeprefix(prefix): array.shape for name, array in self._arrays.items()
                      if name.startswith(prefix)}  # fmt: skip
            shapes |= {name: np.shape(array) for name, array in criterion.state().items()}
            criterion.load_state({name: self._saved(prefix + name, shape) for name, shape in shapes.items()})
        # The run holds on to this object; what is in the variables now need not stay in memory twice.
        self._arrays = {name: array for name, array in self._arrays.items() if name.startswith("metrics/")}

    def restore_metrics(self, model: keras.Model) -> None:
        """Puts the broken epoch's running means back; `fit` has just reset them."""
        for i, variable in enumerate(model.metrics_variables):
            name = f"metrics/{i}"
            assign_on_devices(variable, self._saved(name, values_on_devices(variable).shape))

    def _saved(self, name: str, shape: Sequence[int]) -> np.ndarray:
        saved = self._arrays.get(name)
        # Of a type that NumPy does not know, as bfloat16 is, an array is of kind V.
        if saved is None or saved.shape != tuple(shape) or saved.dtype.kind not in "biufV":
            raise self._of_another()
        return saved


def last_checkpoint(folder: Path) -> tuple[Checkpoint | None, str]:
    """The checkpoint of the run in `folder` and what there is to say of it.

    A damaged one is set aside, so that the run starts afresh, and so does its next `--resume`.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None, ""
    try:
        return Checkpoint(path), ""
    except UserError as error:
        aside = path.with_name(f"{CHECKPOINT}.damaged")
        path.replace(aside)
        return None, f"{error}; it is {aside.name} now, and the run starts afresh"


class CheckpointCallback(StepCallback):
    """Writes a checkpoint every so many steps and at every epoch's end, and puts a broken epoch's metrics back.

    Where they take long, a large model's on a slow disk, there are fewer, so that no more than 5 % of the time goes
    into them.

    Args:
        path: the file.
        criterion: the criterion, or None.
        steps_per_epoch: batches in a whole epoch.
        every: steps between two checkpoints, give or take a few: an epoch cannot go on from every batch.
        can_go_on: says of a number of batches done in this epoch whether `fit` can start there.
        restored: the checkpoint the run goes on from, or None.
        extra: returns what else to put into the checkpoint's place.
    """

    def __init__(
        self, path: Path, criterion: Criterion | None, steps_per_epoch: int, every: int,
        can_go_on: Callable[[int], bool], restored: Checkpoint | None, extra: Callable[[], dict],
    ):
        super().__init__(steps_per_epoch)
        self.path, self.criterion, self.every, self.can_go_on = path, criterion, every, can_go_on
        self.restored, self.extra = restored, extra
        self._due, self._not_before = False, 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch)
        if self.restored is not None and self.first_batch:
            self.restored.restore_metrics(self.model)
        self.restored = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self.batches_done(batch)
        self._due |= (self.epoch * self.steps_per_epoch + done) % self.every == 0
        if self._due and done < self.steps_per_epoch and self.can_go_on(done):
            self._write(self.epoch, done)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._due = True
        self._write(epoch + 1, 0)

    def _write(self, epoch: int, batches: int):
        began = time.monotonic()
        if began < self._not_before:
            return
        self._due = False
        place = {**self.extra(), "epoch": epoch, "batches": batches}
        if not batches:
            place["seconds"] = 0.0
        write_checkpoint(self.path, self.model, self.criterion, place)
        done = time.monotonic()
        self._not_before = done + rest_after(done - began)
