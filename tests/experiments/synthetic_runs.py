"""Synthetic run folders: made-up curves in the runner's file layout, for tests of what reads such folders."""

import csv
import json
import math
import random
from pathlib import Path

TASKS = {"sst2": ("SST-2", ["accuracy"]), "cola": ("CoLA", ["matthews"]), "mrpc": ("MRPC", ["accuracy", "f1"]),
         "stsb": ("STS-B", ["pearson", "spearman"])}  # fmt: skip
TINY_STEPS = (10, 25, 50, 70, 75, 80, 84, 88, 90, 92, 93, 94, 95, 96, 97, 97.5, 98, 98.5, 99, 99.5)
ROLES = ("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output")
STRENGTH = {"baseline": 0.0, "magnitude": 0.5, "movement": 0.35, "spt": 0.2, "random": 1.0}


def write_run(output, method="spt", task="sst2", seed=1, epochs=25, steps=TINY_STEPS, status="finished", label=None,
              several=True, timestamp="20250102_030405", **config):  # fmt: skip
    """Writes one synthetic run folder below `output` and returns it."""
    title, metrics = TASKS[task]
    folder = Path(output) / (f"results_{method}_{task}" + (f"_seed{seed}" if several else ""))
    folder.mkdir(parents=True)
    rows = [_row(method, metrics, seed, epoch, steps) for epoch in range(1, epochs + 1)]
    with open(folder / f"results_{method}_{timestamp}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = {"model_size": "tiny", "task": task, "data": "embedded", "epochs": epochs, "seed": seed,
                "pruning_method": method, "learning_rate": 2e-5, "num_layers": 2, "d_model": 256, "num_heads": 4,
                "dff": 512, "pretrained": None, "sparsity_steps": list(steps), "schedule": "steps"}  # fmt: skip
    metadata = {
        "config": settings | config,
        "versions": {"keras": "3.15.0", "tensorflow": "2.21.0", "python": "3.11.7"},
        "seed": seed, "status": status, "method": method, "seconds": 612.5,
        "data": {"kind": "embedded", "label": label or "embedded data", "partial": "partial" in (label or ""),
                 "rows": {"train": 4000, "dev": 500}},
        "task": {"name": task, "title": title, "metrics": metrics},
        "hardware": {"cpu": "2 cores", "gpu": None, "memory": "8 GB"},
        "final": rows[-1], "best": max(rows, key=lambda row: row[f"val_{metrics[0]}"]),
        "parameters": {"total": 9000000, "prunable": 1048576, "remaining": 5242},
    }  # fmt: skip
    (folder / f"metadata_{method}_{timestamp}.json").write_text(json.dumps(metadata))
    (folder / "log.txt").write_text(f"synthetic log of {method}\n")
    return folder


def _row(method, metrics, seed, epoch, steps):
    noise = random.Random(f"{method} {metrics} {seed} {epoch}")
    done = min(max(epoch - 3, 0), len(steps))
    sparsity = 0.0 if method == "baseline" or not done else steps[done - 1] / 100
    learnt = 1 - math.exp(-epoch / 2.5)
    lost = STRENGTH.get(method, 0.1) * (sparsity**2 + 0.25 * max(0.0, -math.log10(1 - sparsity) - 1))
    value = 0.5 + 0.34 * learnt * max(0.05, 1 - lost) + noise.gauss(0, 0.006)
    row = {"epoch": epoch, "target_sparsity": sparsity, "sparsity": sparsity, "train_loss": 1.05 - value + 0.02 * lost,
           f"train_{metrics[0]}": min(1.0, value + 0.05 * learnt), "val_loss": 1.2 - value}  # fmt: skip
    row |= {f"val_{name}": value - 0.02 * index for index, name in enumerate(metrics)}
    row |= {"learning_rate": 2e-5 * (1 - epoch / 30), "seconds": 24.5, "examples_per_second": 163.0}
    if method == "spt":
        size = 1e-4 / (1 - 0.9 * sparsity)
        row |= {f"reward_{role}": "" if epoch == 1 else size * (index + noise.uniform(0.6, 1.4))
                for index, role in enumerate(ROLES)}  # fmt: skip
    return row
