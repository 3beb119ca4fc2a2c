"""What movement's scores say after an epoch in which nothing is closed: the weights that they would close, closed.

`python -m benchmarks.movement_scores MODEL -d glue`, MODEL being a folder fine-tuned on SST-2; beside them as many
weights with the highest scores, and as many by chance. Movement closes the lowest ones.
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
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.run_family import run_tokenizer
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.support.backend import view
from gated_bert.support.files import write_csv_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset, task_loss
from gated_bert.tasks.metrics import streaming_metric

SHARES = (0.003, 0.01, 0.03, 0.1)
_Order = Callable[[np.ndarray, np.random.Generator], np.ndarray]
ORDERS: dict[str, _Order] = {
    "lowest": lambda scores, rng: scores,
    "highest": lambda scores, rng: -scores,
    "random": lambda scores, rng: rng.random(scores.shape),
}
"""What is closed → an order of a matrix' weights, the smallest of which are closed."""


def measure(model_folder: str, data_source: str, examples: int, rate: float, seed: int) -> pd.DataFrame:
    """A row for each share and order: accuracy and loss on the development set, and what is closed where."""
    config = GatedBertConfig(
        task="sst2", data=data_source, pretrained=model_folder, pruning_method="movement", train_examples=examples,
        max_len=64, batch_size=32, dropout_rate=0.1, freeze="embeddings", learning_rate=rate, epochs=1, seed=seed,
        precision="auto", pruning_start_epoch=1, pruning_end_epoch=1,
    )  # fmt: skip
    keras.utils.set_random_seed(seed)
    data = load_task_data(config)
    tokenizer = run_tokenizer(config)
    batches = make_dataset(data.task, tokenizer, data.train, config, seed=seed)
    dev_sets = {name: make_dataset(data.task, tokenizer, each, config) for name, each in data.dev.items()}
    model = build_model(config, data.task, tokenizer.vocab_size, gate_rule="straight_through")
    model.compile(build_optimizer(config, model, len(batches), "gradient"), task_loss(data.task),
                  metrics=[streaming_metric(data.task)])  # fmt: skip
    model.fit(batches, epochs=1, shuffle=False)
    layers = model.gated_layers(config.prunable_roles)
    scores = [np.array(view(layer.scores)) for layer in layers]
    rows = [_row(0.0, "nothing", evaluate_model(model, data.task, dev_sets, data.dev, config)[0], {})]
    rng = np.random.default_rng(seed)
    with progress_bar("closing", len(SHARES) * len(ORDERS)) as advance:
        for share in SHARES:
            for name, order in ORDERS.items():
                told = _close(layers, [order(each, rng) for each in scores], share)
                judged = evaluate_model(model, data.task, dev_sets, data.dev, config)[0]
                rows.append(_row(share, name, judged, told))
                advance(f"{share:g} {name}", 1)
    return pd.DataFrame(rows)


def _close(layers: Sequence[GatedLayer], ranks: Sequence[np.ndarray], share: float) -> dict[str, float]:
    """Closes the smallest of each matrix. Says whether the closed weights of a column have one sign, 0 to 1."""
    alike = []
    for layer, order in zip(layers, ranks, strict=True):
        closed = order < np.quantile(order, share)
        layer.mask_variable.assign((~closed).astype(np.float32))
        signs = np.abs((np.sign(view(layer.raw_kernel)) * closed).sum(0))
        alike.append(float((signs / np.maximum(closed.sum(0), 1)).mean()))
    return {"same_sign": float(np.mean(alike)), "same_sign_last": alike[-1]}


def _row(share: float, closed: str, judged: dict[str, float], told: dict[str, float]) -> dict:
    return {"closed": share, "which": closed, "accuracy": judged["accuracy"], "loss": judged["loss"], **told}


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
