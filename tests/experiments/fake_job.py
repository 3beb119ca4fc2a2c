"""Stands in for training: keeps the promises of a run's process and folder, and takes a second instead of an hour.

`FAKE_FAIL=name,…` names methods that fail at once, `FAKE_STEP` the seconds of one step, `FAKE_STUBBORN=1` a job that
ignores SIGTERM.
"""

import argparse
import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

from gated_bert.experiments.runs.job_process import stop_on_signals, watch_launcher

STEPS = 20


def write_json(path: Path, content: dict):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


def run(config: dict, folder: Path, resume: bool):
    method, epochs = config["pruning_method"], config["epochs"]
    print(f"resume {resume}, threads {os.environ.get('OMP_NUM_THREADS')}, gpu {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    if method in os.environ.get("FAKE_FAIL", "").split(","):
        sys.exit("ValueError: this job was made to fail")
    (folder / f"ran-{os.getpid()}").touch()
    rows = []
    status = {"job": folder.name, "method": method, "pid": os.getpid(), "epochs": epochs, "steps": STEPS}
    for epoch in range(1, epochs + 1):
        for step in range(1, STEPS + 1):
            time.sleep(float(os.environ.get("FAKE_STEP", "0.02")))
            left = (epochs * STEPS - (epoch - 1) * STEPS - step) * 0.02
            live = {"state": "running", "epoch": epoch, "step": step, "seconds_left": left, "sparsity": 0.2 * epoch}
            metric = {"metric_name": "accuracy", "metric": 0.5 + 0.1 * epoch}
            write_json(folder / "status.json", status | live | metric)
        print(f"epoch {epoch} done")
        rows.append({"epoch": epoch, "target_sparsity": 0.2 * epoch, "sparsity": 0.2 * epoch, "train_loss": 0.5,
                     "train_accuracy": 0.7, "val_loss": 0.6, "val_accuracy": 0.5 + 0.1 * epoch, "learning_rate": 1e-3,
                     "seconds": 1.0, "examples_per_second": 10.0})  # fmt: skip
    with open(folder / f"results_{method}_20260101-000000.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_json(folder / f"metadata_{method}_20260101-000000.json", {
        "method": method, "label": method, "config": config, "seed": config["seed"], "status": "finished",
        "task": {"name": config["task"], "title": config["task"], "kind": "classification", "metrics": ["accuracy"]},
        "data": {"kind": "embedded", "label": "embedded data", "partial": False}, "final": rows[-1], "best": rows[0],
        "parameters": {"total": 10, "prunable": 8, "remaining": 4}, "versions": {}, "hardware": {}, "seconds": 1.0,
    })  # fmt: skip
    write_json(folder / "status.json", status | {"state": "finished", "epoch": epochs, "step": STEPS})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-file", type=Path)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    flags = parser.parse_args()
    stop_on_signals()
    if os.environ.get("FAKE_STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watch_launcher()
    try:
        run(json.loads(flags.config_file.read_text()), flags.run_dir, flags.resume)
    except KeyboardInterrupt:
        (flags.run_dir / "tidied-up").touch()
        sys.exit(130)


main()
