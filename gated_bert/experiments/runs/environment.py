"""What a run ran on, for its metadata."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import keras
import psutil

_PACKAGES = ("gated_bert", "keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "tokenizers", "datasets", "pandas")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, and the Keras backend."""
    found = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict:
    """Processor, cores usable by this process, memory in GiB and the accelerators that Keras sees."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": usable,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": [device for device in keras.distribution.list_devices() if not device.startswith("cpu")],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
