"""What happens at the end of every epoch of a run."""

from __future__ import annotations

import logging
import math
import time

from keras import ops

from gated_bert.experiments.reports.best import best_row
from gated_bert.pruning.callbacks import StepCallback
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

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self.train_set.set_epoch(epoch, self.first_batch)


class EpochCallback(StepCallback):
    """At an epoch's end: evaluates, adds the row, keeps the best model. In between: stops on a NaN loss.

    Comes after the callback that prunes: of a model pruned once before training it also evaluates what that left.

    Args:
        run: the run, for its data, model, rows and files.
        seconds: seconds that an earlier, broken run spent in the epoch that this one goes on with.
    """

    def __init__(self, run, seconds: float):
        super().__init__(run.steps)
        self.run = run
        self._before = seconds
        self._began = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        if self.run.one_shot.keys() == {"before"}:
            self.run.one_shot["after"] = self.run.evaluate()
        self._began = time.time()

    def seconds(self) -> float:
        """Seconds spent training in this epoch, those before a stop included."""
        return self._before + time.time() - self._began

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the training loss became {logs['loss']} at epoch {self.epoch + 1}, step {self.batches_done(batch)}; "
                "the rows so far are kept. Try a lower --learning-rate, a longer --warmup or --precision float32"
            )

    def on_epoch_end(self, epoch, logs=None):
        run, seconds = self.run, self.seconds()
        primary = run.task.metrics[0]
        validation = {f"val_{name}": value for name, value in run.evaluate().items()}
        if run.pruning is None:
            logs.update(self._sparsities())
        logs.update(validation)
        optimizer = getattr(run.model.optimizer, "inner_optimizer", run.model.optimizer)
        row = {
            "epoch": epoch + 1,
            "target_sparsity": logs["target_sparsity"],
            "sparsity": logs["sparsity"],
            "train_loss": logs["loss"],
            f"train_{primary}": logs[primary],
            **validation,
            "learning_rate": float(ops.convert_to_numpy(optimizer.learning_rate)),
            "seconds": seconds,
            "examples_per_second": len(run.data.train.texts) / seconds,
            "pattern_sparsity": logs["pattern_sparsity"],
        }
        row |= {name: logs[name] for name in (run.pruning.columns if run.pruning else ())}
        run.rows.append({name: float(value) if name != "epoch" else value for name, value in row.items()})
        run.write_rows()
        if best_row(run.rows, run.primary) is run.rows[-1]:
            run.save("model_best", run.rows[-1])
            run.saved_best = epoch + 1
        self._before = 0.0
        LOGGER.info(
            "epoch %d: loss %.4f, %s %.4f, sparsity %.4f, %.1f s",
            epoch + 1,
            row["train_loss"],
            run.primary,
            row[run.primary],
            row["sparsity"],
            seconds,
        )

    def _sparsities(self) -> dict[str, float]:
        """What a callback that prunes would add to the logs of a run that has none: a dense one, or a ticket's."""
        config, model = self.run.config, self.run.model
        layers = model.gated_layers(config.prunable_roles)
        closed = sparsity(layers)
        if not config.ticket:
            return {"target_sparsity": 0.0, "sparsity": closed, "pattern_sparsity": closed}
        pruner = Pruner.from_config(config, layers, [sizes.num_heads for sizes in model.bert_config.layers])
        return {"target_sparsity": pruner.pattern.total(config.end_sparsity), "sparsity": closed,
                "pattern_sparsity": sparsity(pruner.layers_of_groups())}  # fmt: skip
