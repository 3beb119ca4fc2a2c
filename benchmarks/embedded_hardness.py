"""How hard the embedded data are: a bag of words against the dense tiny model, task by task.

    python benchmarks/embedded_hardness.py                          # all tasks, three seeds, both models
    python benchmarks/embedded_hardness.py --tasks sst2 --seeds 42  # one run

Rows go to `results/benchmarks/embedded_hardness.csv` as they are done; a run that is there with the same settings is
not repeated.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from gated_bert.tasks.embedded import RECIPES, embedded_examples
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.metrics import evaluate
from gated_bert.tasks.task import get_task

COLUMNS = ["task", "metric", "train_examples", "dev_examples", "bag_of_words", "bag_of_words_fields", "seed", "epochs",
           "batch_size", "learning_rate", "dense_best", "dense_final", "points_above", "seconds"]  # fmt: skip
SETTINGS = ["task", "seed", "epochs", "batch_size", "learning_rate"]


def bag_of_words_scores(task_name: str) -> dict[str, float]:
    """Scores on the first development set of a linear model on word counts.

    Args:
        task_name: one of the tasks of `embedded_examples`.

    Returns:
        100 × the task's primary metric by features: "joined" (counts over both texts together), and for pairs also
        "fields" (counts of each text apart). Logistic regression; ridge regression for STS-B.
    """
    task = get_task(task_name)
    train, dev_sets = embedded_examples(task_name)
    dev = dev_sets[task.dev_splits[0]]
    scores = {}
    for features in ("joined", "fields") if task.pair else ("joined",):
        train_counts, dev_counts = _word_counts(features, train, dev)
        if task.kind == "regression":
            outputs = Ridge().fit(train_counts, train.labels).predict(dev_counts)[:, None]
        else:
            outputs = LogisticRegression(max_iter=2000).fit(train_counts, train.labels).predict_log_proba(dev_counts)
        scores[features] = 100 * evaluate(task, outputs, dev.labels)[task.primary_metric]
    return scores


def _word_counts(features: str, train: Examples, dev: Examples) -> list:
    counter = CountVectorizer(token_pattern=r"\S+").fit([*train.texts, *(train.pairs or ())])

    def counts(examples: Examples):
        fields = [counter.transform(texts) for texts in (examples.texts, examples.pairs) if texts is not None]
        return scipy.sparse.hstack(fields).tocsr() if features == "fields" else sum(fields)

    return [counts(train), counts(dev)]


def dense_scores(task_name: str, seed: int, epochs: int, batch_size: int, learning_rate: float) -> dict[str, float]:
    """Trains the dense tiny model from scratch; 100 × the primary metric at its best and after the last epoch."""
    from gated_bert.config import GatedBertConfig
    from gated_bert.experiments.runs.run import train

    config = GatedBertConfig(
        model_size="tiny", task=task_name, data="embedded", pruning_method="baseline", epochs=epochs,
        batch_size=batch_size, learning_rate=learning_rate, seed=seed, max_len=32,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        rows = pd.DataFrame(train(config, folder).rows)
    scores = 100 * rows[f"val_{get_task(task_name).primary_metric}"]
    return {"dense_best": scores.max(), "dense_final": scores.iloc[-1], "seconds": rows["seconds"].sum()}


def hardness(task_name: str, **settings) -> dict:
    """One row of the table: both models on one task."""
    train, dev_sets = embedded_examples(task_name)
    task = get_task(task_name)
    words = bag_of_words_scores(task_name)
    dense = dense_scores(task_name, **settings)
    return {
        "task": task_name, "metric": task.primary_metric, "train_examples": len(train),
        "dev_examples": len(dev_sets[task.dev_splits[0]]), "bag_of_words": words["joined"],
        "bag_of_words_fields": words.get("fields", np.nan), **settings, **dense,
        "points_above": dense["dense_best"] - max(words.values()),
    }  # fmt: skip


def main():
    """Measures what is not in the table yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=",".join(RECIPES), help="comma-separated task names (default: all)")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated seeds (default: 1,2,3)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/embedded_hardness.csv"))
    given = parser.parse_args()
    table = pd.read_csv(given.output) if given.output.exists() else pd.DataFrame(columns=COLUMNS)
    for task_name in given.tasks.split(","):
        for seed in map(int, given.seeds.split(",")):
            settings = {"seed": seed, "epochs": given.epochs, "batch_size": given.batch_size,
                        "learning_rate": given.learning_rate}  # fmt: skip
            done = (table[SETTINGS] == [task_name, *settings.values()]).all(axis=1)
            if not done.any():
                row = pd.DataFrame([hardness(task_name, **settings)], columns=COLUMNS)
                table = row if table.empty else pd.concat([table, row], ignore_index=True)
                temporary = given.output.with_suffix(".tmp")
                table.round(4).to_csv(temporary, index=False)
                os.replace(temporary, given.output)
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
