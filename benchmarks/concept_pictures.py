"""The pictures of docs/concepts.md: `python -m benchmarks.concept_pictures`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

from gated_bert.pruning import Cubic, Linear, OneShot, Steps

DOCS = Path(__file__).resolve().parents[1] / "docs"


def schedules() -> Figure:
    """Sparsity over epochs."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    time = np.linspace(1, 10, 400)
    curves = {"linear": Linear(0.0, 0.9, 3, 8), "cubic": Cubic(0.0, 0.9, 3, 8), "one_shot": OneShot(0.0, 0.9, 3, 3),
              "steps": Steps(0.1, 0.9, 3, 8, (0.1, 0.3, 0.5, 0.7, 0.8, 0.9))}  # fmt: skip
    for (name, schedule), colour in zip(curves.items(), ("#0072B2", "#D55E00", "#333333", "#009E73"), strict=True):
        axes.plot(time, [100 * schedule(each) for each in time], label=name, color=colour)
    axes.set_xlabel("epoch (its beginning)")
    axes.set_ylabel("sparsity (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def scopes() -> Figure:
    """What half of two small matrices' weights is, by unit and by scope."""
    draw = np.random.default_rng(3)
    matrices = [np.abs(draw.normal(size=(6, 6))), 0.5 * np.abs(draw.normal(size=(6, 6)))]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(2, 4)
    pooled = [np.sqrt((matrix**2).mean(0, keepdims=True)).repeat(6, 0) for matrix in matrices]
    columns = [("|W|: the scores", None, None), ("single weights, layer", matrices, "layer"),
               ("single weights, global", matrices, "global"), ("columns, layer", pooled, "layer")]  # fmt: skip
    for column, (title, scores, scope) in enumerate(columns):
        for row, matrix in enumerate(matrices):
            axes = panels[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.imshow(matrix, cmap="Blues", vmin=0, vmax=2)
            if row == 0:
                axes.set_title(title, fontsize="small")
            if scores is not None:
                among = np.concatenate([each.ravel() for each in scores]) if scope == "global" else scores[row].ravel()
                closed = scores[row] < np.sort(among)[len(among) // 2]
                axes.imshow(np.where(closed, 1.0, np.nan), cmap="Greys", vmin=0, vmax=1.6)
    panels[0, 0].set_ylabel("matrix A")
    panels[1, 0].set_ylabel("matrix B")
    figure.supxlabel("grey: closed", fontsize="small")
    return figure


if __name__ == "__main__":
    rcParams["svg.hashsalt"] = "concepts"
    for name, figure in (("schedule", schedules()), ("scope", scopes())):
        figure.savefig(DOCS / f"concepts_{name}.svg", metadata={"Date": None})
