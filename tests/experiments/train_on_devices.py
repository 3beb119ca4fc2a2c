"""Trains on one and on two virtual devices; run on one backend by test_devices.py.

    python train_on_devices.py FOLDER METHOD…

Writes under FOLDER the runs `METHOD_1` and `METHOD_2`, the latter on two devices.
"""

import os
import sys
from pathlib import Path

# What JAX reads when it starts; TensorFlow is told below.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 " + os.environ.get("XLA_FLAGS", "")

import keras  # noqa: E402

from gated_bert.config import GatedBertConfig  # noqa: E402
from gated_bert.experiments.run import train  # noqa: E402

RECORD = {
    "data": "embedded", "train_examples": 75, "model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2,
    "dff": 32, "batch_size": 16, "learning_rate": 1e-3, "epochs": 2, "pruning_start_epoch": 2, "pruning_end_epoch": 2,
    "end_sparsity": 0.6, "movement_pruning_frequency_steps": 3, "clip_norm": 0.05,
}  # fmt: skip
"""Clipping at 0.05 acts on every step; 75 examples make a last batch of 11, which two devices cannot share."""


def main(folder: Path, methods: list[str]):
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        (processor,) = tensorflow.config.list_physical_devices("CPU")
        two = [tensorflow.config.LogicalDeviceConfiguration()] * 2
        tensorflow.config.set_logical_device_configuration(processor, two)
    for method in methods:
        for devices in (1, 2):
            config = GatedBertConfig(pruning_method=method, devices=devices, **RECORD)
            train(config, folder / f"{method}_{devices}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
