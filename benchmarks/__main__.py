"""`python -m benchmarks`: all benchmarks, each in a process of its own, and one table."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure, read_figures, table
from gated_bert.start import python_command

BENCHMARKS = (
    "training_step", "pytorch_step", "bucketing", "input_pipeline", "mask_update", "movement_masks", "second_order",
    "selection", "spt_step", "distillation", "shrink", "parallel_sweep", "many_runs", "checkpoint", "tiles",
    "onnx_export", "latency_table", "families", "clients", "lime", "start_up", "scale",
)  # fmt: skip


def run(name: str, options: argparse.Namespace) -> tuple[str, list[Figure]]:
    """Runs one benchmark; its environment line and its figures, of which a failed one has a single NaN."""
    folder = Path(options.output_dir)
    command = [*python_command(f"benchmarks.{name}"), "-o", str(folder), "-d", options.data]
    done = subprocess.run([*command, *(["--quick"] if options.quick else [])], capture_output=True, text=True)
    if done.returncode == 0:
        return read_figures(folder / f"{name}.json")
    print(done.stderr, file=sys.stderr)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return "", [Figure(name, float("nan"), "", "", f"failed: {last}")]


def main() -> int:
    """Runs the benchmarks asked for and prints their table; 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures what the project promises, and prints one table."
    )
    parser.add_argument("--quick", action="store_true", help="few repeats, small sizes: to see that all runs")
    parser.add_argument("-o", "--output-dir", default="results/benchmarks", help="folder of the JSON and CSV files")
    parser.add_argument("-d", "--data", default="embedded", help="embedded, or a folder in the GLUE layout")
    names = {"nargs": "+", "choices": BENCHMARKS, "default": BENCHMARKS, "metavar": "NAME"}
    parser.add_argument("--only", help=", ".join(BENCHMARKS), **names)
    options = parser.parse_args()
    environments, figures = [], []
    for name in options.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        environment, measured = run(name, options)
        environments.append(environment)
        figures += measured
    lines = [table(figures), *dict.fromkeys(line for line in environments if line)]
    report = "\n".join(lines)
    print(report)
    Path(options.output_dir).mkdir(parents=True, exist_ok=True)
    (Path(options.output_dir) / "table.txt").write_text(report + "\n", encoding="utf-8")
    return int(any(figure.value != figure.value for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
