"""The live state of a run, for whoever watches it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from gated_bert.partial import partial
from gated_bert.pruning.callbacks import StepCallback

STATUS = "status.json"


class Status:
    """Writes `status.json`, at most twice a second but at once when the state changes.

    Args:
        folder: the run folder.
        notify: called with each status dictionary, or None.
        **fields: what stays the same (job, method, task, seed, epochs).
    """

    def __init__(self, folder: Path, notify: Callable[[dict], None] | None = None, **fields):
        self.path = folder / STATUS
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
        self._written = 0.0

    def update(self, **fields):
        """Takes in new values and writes them if it is time."""
        changed = fields.get("state", self.fields["state"]) != self.fields["state"] or "message" in fields
        self.fields |= fields
        now = time.time()
        if changed or now - self._written >= 0.5:
            self._written = now
            self.fields |= {"pid": os.getpid(), "updated": now}
            # Not worth a sync to disk: it is stale in half a second.
            temporary = partial(self.path)
            temporary.write_text(json.dumps(self.fields))
            temporary.replace(self.path)
            if self.notify:
                self.notify(dict(self.fields))


class StatusCallback(StepCallback):
    """Feeds a `Status` from `fit`.

    Args:
        status: where it goes.
        steps_per_epoch: batches in a whole epoch.
        epochs: epochs of the run.
        metric: name of the primary metric.
        done: steps that an earlier, broken run had done.
    """

    def __init__(self, status: Status, steps_per_epoch: int, epochs: int, metric: str, done: int):
        super().__init__(steps_per_epoch)
        self.status, self.epochs, self.metric = status, epochs, metric
        self._began, self._done_before = time.time(), done

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self.status.update(
            state="running", message="", epoch=epoch + 1, step=self.first_batch, steps=self.steps_per_epoch
        )

    def on_train_batch_end(self, batch, logs=None):
        done = self.epoch * self.steps_per_epoch + self.batches_done(batch)
        pace = (time.time() - self._began) / max(done - self._done_before, 1)
        self.status.update(
            step=self.batches_done(batch),
            loss=float(logs["loss"]),
            seconds_left=pace * (self.epochs * self.steps_per_epoch - done),
        )

    def on_epoch_end(self, epoch, logs=None):
        self.status.update(
            metric_name=self.metric, metric=logs[f"val_{self.metric}"], sparsity=logs["sparsity"],
            target_sparsity=None if logs["target_sparsity"] != logs["target_sparsity"] else logs["target_sparsity"],
            message=f"epoch {epoch + 1} done",
        )  # fmt: skip
