"""What happens at the end of every epoch of a run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from keras import ops

from gated_bert.experiments.runs.run_folder import RunFolder
from gated_bert.experiments.runs.tracking import Tracking
from gated_bert.pruning.callbacks import PruningCallback, StepCallback
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.support.errors import UserError
from gated_bert.tasks.pipeline import BucketedDataset

LOGGER = logging.getLogger("gated_bert")


class OrderCallback(StepCallback):
    """Puts the training data into an epoch's order, before any other callback looks at it.

    Args:
        train_set: the training data.
    """

    def __init__(self, train_set: BucketedDataset):
        super().__init__(len(train_set))
        self.train_set = train_set

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch)
        self.train_set.set_epoch(epoch, self.first_batch)


class EpochCallback(StepCallback):
    """At an epoch's end: evaluates, adds the row, keeps the best model. In between: stops on a NaN loss.

    Comes after the callback that prunes: of a model pruned once before training it also evaluates what that left.

    Args:
        folder: the run's folder.
        evaluate: gives loss and metrics on the development sets.
        pruning: the callback that prunes, None in a run without one.
        steps_per_epoch: batches in an epoch.
        examples: training examples in an epoch.
        seconds: seconds that an earlier, broken run spent in the epoch that this one goes on with.
    """

    def __init__(
        self, folder: RunFolder, evaluate: Callable[[], dict[str, float]], pruning: PruningCallback | None,
        steps_per_epoch: int, examples: int, seconds: float,
    ):  # fmt: skip
        super().__init__(steps_per_epoch)
        self.folder, self.evaluate, self.pruning = folder, evaluate, pruning
        self.examples: float = examples
        self._before = seconds
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch)
        if self.folder.one_shot.keys() == {"before"}:
            self.folder.one_shot["after"] = self.evaluate()
        self._began = time.time()

    def place(self) -> dict:
        """What a checkpoint holds of the run beside its variables; seconds in this epoch, those before a stop too."""
        return self.folder.place(self._seconds())

    def without_training(self) -> None:
        """Writes the one row of a run of no epochs: epoch 0, of whose training there is nothing to say."""
        logs = dict.fromkeys(("loss", self.folder.task.metrics[0]), math.nan)
        if self.pruning is not None:
            self.pruning.on_epoch_end(0, logs)
        self.examples = math.nan
        self.on_epoch_end(-1, logs)
        self.folder.one_shot["after"] = {name.removeprefix("val_"): value for name, value in self.folder.final.items()
                                         if name.startswith("val_")}  # fmt: skip

    def _seconds(self) -> float:
        return self._before + time.time() - self._began

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the training loss became {logs['loss']} at epoch {self.epoch + 1}, step {self.batches_done(batch)}; "
                "the rows so far are kept. Try a lower --learning-rate, a longer --warmup or --precision float32"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds, primary = self._seconds(), self.folder.task.metrics[0]
        validation = {f"val_{name}": value for name, value in self.evaluate().items()}
        if self.pruning is None:
            logs.update(self._sparsities())
        logs.update(validation)
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        row = {
            "epoch": epoch + 1,
            "target_sparsity": logs["target_sparsity"],
            "sparsity": logs["sparsity"],
            "train_loss": logs["loss"],
            f"train_{primary}": logs[primary],
            **validation,
            "learning_rate": float(ops.convert_to_numpy(optimizer.learning_rate)),
            "seconds": seconds,
            "examples_per_second": self.examples / seconds,
            "pattern_sparsity": logs["pattern_sparsity"],
        }
        row |= {name: logs[name] for name in (self.pruning.columns if self.pruning else ())}
        self.folder.add_row(row, self.model)
        self._before = 0.0
        LOGGER.info(
            "epoch %d: loss %.4f, %s %.4f, sparsity %.4f, %.1f s",
            epoch + 1,
            row["train_loss"],
            self.folder.primary,
            row[self.folder.primary],
            row["sparsity"],
            seconds,
        )

    def _sparsities(self) -> dict[str, float]:
        """What a callback that prunes would add to the logs of a run that has none: a dense one, or a ticket's."""
        config, model = self.folder.config, self.model
        layers = model.gated_layers(config.prunable_roles)
        closed = sparsity(layers)
        if not config.ticket:
            return {"target_sparsity": 0.0, "sparsity": closed, "pattern_sparsity": closed}
        pruner = Pruner.from_config(config, layers, model.architecture.num_heads)
        return {"target_sparsity": pruner.pattern.total(config.end_sparsity), "sparsity": closed,
                "pattern_sparsity": sparsity(pruner.layers_of_groups())}  # fmt: skip


class TrackCallback(StepCallback):
    """Tells the trackers every epoch's row, after the callback that writes it.

    Args:
        tracking: the trackers.
        folder: the run's folder.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(self, tracking: Tracking, folder: RunFolder, steps_per_epoch: int):
        super().__init__(steps_per_epoch)
        self.tracking, self.folder = tracking, folder

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.tracking.row(self.folder.final)

    def without_training(self) -> None:
        """Tells the one row of a run of no epochs."""
        self.tracking.row(self.folder.final)
