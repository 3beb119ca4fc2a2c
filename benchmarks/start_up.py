"""What a command costs before it does anything: `-h`, a refusal, and a run of a few steps."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from gated_bert.start import python_command

GATED_BERT = python_command("gated_bert")[1:]
TINY = "train -d embedded -t sst2 -m tiny -p baseline -e 1 -ml 16 -b 32 --train-examples 96"


def command(*words: str, status: int = 0):
    """A function that runs Python with `words` in a process of its own."""

    def run():
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != status:
            raise RuntimeError(f"{' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()[-300:]}")

    return run


def measure(options) -> list[Figure]:
    """Start-up of the command line over that of Python and of Keras with its backend."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "python": command("-c", "pass"),
            "keras": command("-c", "import keras; keras.ops.ones(1)"),
            "-h": command(*GATED_BERT, "-h"),
            "refusal": command(*GATED_BERT, "sweep", "-e", "0", status=2),
            "run": command(*GATED_BERT, *TINY.split(), "-o", folder),
        }
        times = interleave(sides, 2 if options.quick else 7)
    figures = []
    for above, below, goal in (("-h", "python", ""), ("-h", "keras", "≤ 0.25"), ("refusal", "keras", "≤ 0.25"),
                               ("run", "keras", "")):  # fmt: skip
        value, details = ratio(times[above], times[below])
        names = {"run": "a run of 3 steps", "refusal": "a refused flag", "keras": "import keras"}
        label = f"{names.get(above, above)} / {names.get(below, below)}"
        figures.append(Figure(f"start-up: {label}", value, "×", goal, details))
    return figures


if __name__ == "__main__":
    main("start_up", measure)
