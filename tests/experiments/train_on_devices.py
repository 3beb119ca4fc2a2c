"""Trains on one and on two virtual devices; run on one backend by test_devices.py.

    python train_on_devices.py FOLDER METHOD

Writes under FOLDER the runs `usual_1` and `usual_2`, the latter on two devices, and `resumed`, on two devices and
stopped in the middle of its last epoch; `loss_1` and `loss_2` train on a loss that is handed in.
"""

import os
import sys
from pathlib import Path

# What JAX reads when it starts; TensorFlow is told below.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 " + os.environ.get("XLA_FLAGS", "")

import keras  # noqa: E402

from gated_bert.config import GatedBertConfig  # noqa: E402
from gated_bert.experiments.runs import run
from gated_bert.experiments.runs.checkpoint import CheckpointCallback

RECORD = {
    "data": "embedded", "train_examples": 80, "max_len": 8, "model_size": "tiny", "num_layers": 1, "d_model": 16,
    "num_heads": 2, "dff": 32, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.5, "clip_norm": 0.05,
    "epochs": 2, "pruning_start_epoch": 2, "pruning_end_epoch": 2, "end_sparsity": 0.6, "checkpoint_steps": 1,
    "movement_pruning_frequency_steps": 2,
}  # fmt: skip
"""Clipping acts on every step, and without Adam's scaling the size of a gradient tells."""


def two_devices():
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        (processor,) = tensorflow.config.list_physical_devices("CPU")
        two = [tensorflow.config.LogicalDeviceConfiguration()] * 2
        tensorflow.config.set_logical_device_configuration(processor, two)


def train_broken(config: GatedBertConfig, folder: Path):
    whole = CheckpointCallback.on_train_batch_end

    def until_step_8(self, batch, logs=None):
        whole(self, batch, logs)
        if self.epoch == 1 and batch == 2:
            raise KeyboardInterrupt

    CheckpointCallback.on_train_batch_end = until_step_8
    try:
        run.train(config, folder)
    except KeyboardInterrupt:
        CheckpointCallback.on_train_batch_end = whole
    run.train(config, folder, resume=True)


def far(model, inputs, labels, outputs):
    """The task's loss, and the distance of the logits to constant ones."""
    task = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")(labels, outputs)
    return task + 0.1 * keras.ops.sum(keras.ops.square(outputs - 3.0), axis=-1)


def main(folder: Path, method: str):
    two_devices()
    run.plot_run = lambda results, failed: None
    for devices in (1, 2):
        config = GatedBertConfig(pruning_method=method, devices=devices, **RECORD)
        run.train(config, folder / f"usual_{devices}")
        run.train(config, folder / f"loss_{devices}", training_loss=far)
    train_broken(GatedBertConfig(pruning_method=method, devices=2, **RECORD), folder / "resumed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
