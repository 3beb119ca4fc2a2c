"""The live state of a run, for whoever watches it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from gated_bert.experiments.reports.run_layout import STATUS_FILE
from gated_bert.pruning.callbacks import StepCallback
from gated_bert.support.partial import partial


class Status:
    """Writes `status.json`, at most twice a second but at once when the state changes.

    Args:
        folder: the run folder.
        notify: called with each status dictionary, or None.
        **fields: what stays the same (job, method, task, seed, epochs).
    """

    def __init__(self, folder: Path, notify: Callable[[dict], None] | None = None, **fields):
        self.path = folder / STATUS_FILE
        self.notify = notify
        self.fields = {
            "state": "starting",
            "epoch": 0,
            "step": 0,
            "metric": None,
            "sparsity": 0.0,
            "message": "",
            **fields,
        }
        self._written = -math.inf

    @property
    def due(self) -> bool:
        """Whether new values would be written now."""
        return time.monotonic() - self._written >= 0.5

    def update(self, **fields):
        """Takes in new values and writes them if it is time."""
        changed = fields.get("state", self.fields["state"]) != self.fields["state"] or "message" in fields
        self.fields |= fields
        if changed or self.due:
            self._written = time.monotonic()
            self.fields |= {"pid": os.getpid(), "updated": time.time()}
            # Not worth a sync to disk: it is stale in half a second.
            temporary = partial(self.path)
            # JSON has no word for what is no number.
            known = {name: None if value != value else value for name, value in self.fields.items()}
            temporary.write_text(json.dumps(known))
            temporary.replace(self.path)
            if self.notify:
                self.notify(dict(self.fields))


class StatusCallback(StepCallback):
    """Feeds a `Status` from `fit`, after the callback that prunes.

    Args:
        status: where it goes.
        steps_per_epoch: batches in a whole epoch.
        epochs: epochs of the run.
        metric: name of the primary metric.
        done: steps that an earlier, broken run had done.
        sparsity: gives the sparsity of the masks as they are; asked only when it is shown.
    """

    def __init__(
        self,
        status: Status,
        steps_per_epoch: int,
        epochs: int,
        metric: str,
        done: int,
        sparsity: Callable[[], float],
    ):
        super().__init__(steps_per_epoch)
        self.status, self.epochs, self.metric, self.sparsity = status, epochs, metric, sparsity
        self._began, self._done_before = time.time(), done

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self.status.update(
            state="running", message="", epoch=epoch + 1, step=self.first_batch, steps=self.steps_per_epoch,
            sparsity=self.sparsity(),
        )  # fmt: skip

    def on_train_batch_end(self, batch, logs=None):
        done = self.epoch * self.steps_per_epoch + self.batches_done(batch)
        pace = (time.time() - self._began) / max(done - self._done_before, 1)
        self.status.update(
            step=self.batches_done(batch),
            loss=float(logs["loss"]),
            seconds_left=pace * (self.epochs * self.steps_per_epoch - done),
            **({"sparsity": self.sparsity()} if self.status.due else {}),
        )

    def on_epoch_end(self, epoch, logs=None):
        self.status.update(
            metric_name=self.metric, metric=logs[f"val_{self.metric}"], sparsity=logs["sparsity"],
            pattern_sparsity=logs["pattern_sparsity"],
            target_sparsity=None if logs["target_sparsity"] != logs["target_sparsity"] else logs["target_sparsity"],
            message=f"epoch {epoch + 1} done",
        )  # fmt: skip
