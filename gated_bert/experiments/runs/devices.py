"""The devices that share the batches of a run."""

from __future__ import annotations

import keras

from gated_bert.config import ConfigError, GatedBertConfig


def with_counted_devices(config: GatedBertConfig) -> GatedBertConfig:
    """The record with `devices` as a number, so many of which are there and can train together.

    Args:
        config: the run's record.

    Raises:
        ConfigError: more devices than there are, a batch that they cannot share equally, or what TensorFlow cannot do
            on several.
    """
    if config.devices == 1:
        return config
    there, backend = keras.distribution.list_devices(), keras.backend.backend()
    count = config.device_count(len(there))
    if count > len(there):
        raise ConfigError("devices", count, f"1 to {len(there)}: {backend} finds {', '.join(there)}")
    if count > 1 and backend == "tensorflow":
        for name, refused in (("jit_compile", True), ("precision", "mixed_float16")):
            if getattr(config, name) == refused:
                raise ConfigError(name, refused, f"another value with devices={count}, or KERAS_BACKEND=jax: "
                                  "TensorFlow cannot do this on several devices")  # fmt: skip
    return config.replace(devices=count)
