"""What a run leaves to the machine: how many devices share its batches, and in which precision they compute."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.backend import policy


def as_on_this_machine(config: GatedBertConfig, begun: Mapping | None = None) -> GatedBertConfig:
    """The record with what it leaves to the machine decided: `devices` is a number, `precision` that of a policy.

    Args:
        config: the run's record.
        begun: the written record of the run that is gone on with, which has decided on its precision.

    Raises:
        ConfigError: see `with_counted_devices`.
    """
    if config.precision == "auto":
        decided = (begun or {}).get("precision", "auto")
        config = config.replace(precision=policy(decided, config.jit_compile))
    return with_counted_devices(config)


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
