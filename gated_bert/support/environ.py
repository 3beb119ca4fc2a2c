"""What the environment sets: how much is said, and the backend."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gated_bert.support.checks import ConfigError, FlagError, choose

LAUNCHER_VARIABLE = "GATED_BERT_LAUNCHER"
"""Holds the process id of the launcher in the environment of its jobs."""


def verbosity(environ: Mapping[str, str]) -> int:
    """VERBOSE: 0 results only, 1 progress, 2 every mask update and the library's own logs."""
    value = environ.get("VERBOSE") or "1"
    if value not in ("0", "1", "2"):
        raise FlagError.refused("VERBOSE", value, "0 (results only), 1 (progress), 2 (everything)")
    return int(value)


def check_backend(environ: Mapping[str, str]) -> None:
    """Refuses a KERAS_BACKEND that the toolkit does not run on.

    Raises:
        FlagError: another one.
    """
    backend = environ.get("KERAS_BACKEND")
    if backend in ("torch", "openvino"):
        raise FlagError(f"KERAS_BACKEND: {backend!r} is refused; allowed: {', '.join(BACKENDS)}: gated layers do not "
                        f"train on {backend}. Set one of these, or unset it; weights of PyTorch are read by -pt under "
                        "both")  # fmt: skip
    if backend:
        try:
            choose("KERAS_BACKEND", backend, BACKENDS)
        except ConfigError as error:
            raise FlagError(str(error)) from None


BACKENDS = ("tensorflow", "jax")
"""Backends of Keras that layers, criteria and training run on."""


def data_label(environ: Mapping[str, str], data: str) -> str:
    """Where the data comes from, in the words of the configuration table."""
    folder = environ.get("GATED_BERT_DATA")
    return f"{data} (GATED_BERT_DATA={os.path.expanduser(folder)})" if folder and data == "hub" else data
