"""What movement's scores say after an epoch in which nothing is closed: the weights that they would close, closed.

`python -m benchmarks.movement_scores MODEL -d glue`, MODEL being a folder fine-tuned on SST-2; beside them as many
weights with the highest scores, by chance, and those whose closing lowers the training loss most to first order,
−W ∂L/∂W. Movement closes the lowest scores. What first order promises of every choice is told beside what comes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from gated_bert.config import GatedBertConfig
from gated_bert.models.build import build_model
from gated_bert.models.run_family import run_tokenizer
from gated_bert.pruning.criteria.saliency import Saliency
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.pruning.pruner import Pruner
from gated_bert.support.backend import view
from gated_bert.support.files import write_csv_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset, task_loss
from gated_bert.tasks.metrics import streaming_metric

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1)
TRAINING = 1000
"""Training examples on which loss and gradients are looked at."""
_Order = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
ORDERS: dict[str, _Order] = {
    "lowest": lambda scores, promised, rng: scores,
    "highest": lambda scores, promised, rng: -scores,
    "random": lambda scores, promised, rng: rng.random(scores.shape),
    "first order": lambda scores, promised, rng: promised,
}
"""What is closed → an order of a matrix' weights, the smallest of which are closed."""


class _FirstOrder(Saliency):
    """−W ∂L/∂W, by which closing a weight changes the loss to first order."""

    observes = ("gradients",)

    def combine(self, kernel, *seen):
        return -seen[0]


def measure(model_folder: str, data_source: str, examples: int, rate: float, seed: int) -> pd.DataFrame:
    """A row for each share and order: accuracy and loss on development and training examples, and what first order
    promised of the latter's loss."""
    config = GatedBertConfig(
        task="sst2", data=data_source, pretrained=model_folder, pruning_method="movement", train_examples=examples,
        max_len=64, batch_size=32, dropout_rate=0.1, freeze="embeddings", learning_rate=rate, epochs=1, seed=seed,
        precision="auto", pruning_start_epoch=1, pruning_end_epoch=1,
    )  # fmt: skip
    keras.utils.set_random_seed(seed)
    data = load_task_data(config)
    tokenizer = run_tokenizer(config)
    batches = make_dataset(data.task, tokenizer, data.train, config, seed=seed)
    split, dev = next(iter(data.dev.items()))
    examples_of = {"": dev, "train_": data.train.take(np.arange(min(TRAINING, len(data.train))))}
    sets = {name: make_dataset(data.task, tokenizer, each, config) for name, each in examples_of.items()}

    def judged() -> dict[str, float]:
        found = {}
        for name, each in examples_of.items():
            scores = evaluate_model(model, data.task, {split: sets[name]}, {split: each}, config)[0]
            found |= {f"{name}accuracy": scores["accuracy"], f"{name}loss": scores["loss"]}
        return found

    model = build_model(config, data.task, tokenizer.vocab_size, gate_rule="straight_through")
    model.compile(build_optimizer(config, model, len(batches), "gradient"), task_loss(data.task),
                  metrics=[streaming_metric(data.task)])  # fmt: skip
    model.fit(batches, epochs=1, shuffle=False)
    layers = model.gated_layers(config.prunable_roles)
    scores = [np.array(view(layer.scores)) for layer in layers]
    first = _FirstOrder(score_batches=len(sets["train_"]))
    Pruner(layers, first)
    first.prepare(model, sets["train_"])
    promised = [first.scores(layer) for layer in layers]
    rows = [{"closed": 0.0, "which": "nothing", **judged(), "first_order": 0.0}]
    rng = np.random.default_rng(seed)
    with progress_bar("closing", len(SHARES) * len(ORDERS)) as advance:
        for share in SHARES:
            for name, order in ORDERS.items():
                ranks = [order(*of_layer, rng) for of_layer in zip(scores, promised, strict=True)]
                closed = [each < np.quantile(each, share) for each in ranks]
                for layer, mask in zip(layers, closed, strict=True):
                    layer.mask_variable.assign((~mask).astype(np.float32))
                change = sum(float(each[mask].sum()) for each, mask in zip(promised, closed, strict=True))
                rows.append({"closed": share, "which": name, **judged(), "first_order": change})
                advance(f"{share:g} {name}", 1)
    return pd.DataFrame(rows)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="folder of a BERT fine-tuned on SST-2")
    parser.add_argument("-d", "--data", default="embedded", help="as of training")
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("results/benchmarks"))
    given = parser.parse_args(words)
    found = measure(given.model, given.data, given.examples, given.rate, given.seed)
    print(found.round(3).to_string(index=False))
    write_csv_atomic(given.output_dir / "movement_scores.csv", found)


if __name__ == "__main__":
    main()
