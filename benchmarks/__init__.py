"""Measurements whose figures the project states: `python -m benchmarks`.

Every module that `python -m benchmarks -h` names can be run alone, too, e.g. `python -m benchmarks.training_step`;
`embedded_hardness`, `movement_scores` and `structured_peers` are run alone only.
"""

import os

# Frameworks read these when they are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
