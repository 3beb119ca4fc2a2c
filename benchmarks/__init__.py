"""Measurements whose figures the project states: `python -m benchmarks`.

Every module but `embedded_hardness` is one benchmark and can be run alone, e.g. `python -m benchmarks.training_step`.
"""

import os

# Frameworks read these when they are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
