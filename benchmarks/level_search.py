"""What a search for levels keeps without training, by where it begins and by how many texts are looked at.

`python -m benchmarks.level_search MODEL -d glue`, MODEL being a folder fine-tuned for a classification. Judged on
development texts that pruning does not look at, by accuracy and by how far the outputs are from the dense model's: a
Kullback-Leibler divergence tells models apart that a thousand answers do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from gated_bert.compression.benchmark import EVALUATION_BATCH, read_judged
from gated_bert.compression.parity import in_float32
from gated_bert.compression.predict import evaluation_config
from gated_bert.models.distillation import soft_loss
from gated_bert.models.folder import load_model, with_fixed_gates
from gated_bert.pruning.level_search import Levels, measured_weights, search_levels
from gated_bert.pruning.structured import HEADS, StructuredRemoval
from gated_bert.support.files import write_csv_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.evaluation import make_dataset

SHARES = (0.25, 0.5)
"""Shares of the encoder's weights that go."""
JUDGED = 256
"""Texts by which the search judges."""


def weights_left(removal: StructuredRemoval) -> list[np.ndarray]:
    """Weights of the matrices of each sublayer at its levels, int [levels]."""
    width, size = removal.model.architecture.hidden_size, removal.model.architecture.original_head_dim
    return [np.array(part.left) * width * (4 * size if part.kind == HEADS else 2) for part in removal.sublayers]


def share_gone(costs: Sequence[np.ndarray], levels: Levels) -> float:
    """Of all weights, those that are gone at some levels."""
    left = sum(cost[level] for cost, level in zip(costs, levels, strict=True))
    return float(1 - left / sum(cost[0] for cost in costs))


def equal_shares(removal: StructuredRemoval, share: float) -> Levels:
    """The levels that are next to a share of each sublayer's units gone."""
    return tuple(int(np.argmin(np.abs(np.array(part.left) - (1 - share) * part.units))) for part in removal.sublayers)


class Encoder:
    """A dense model, what it is calibrated with and what it is judged on."""

    def __init__(self, source: str, data: str, texts: int):
        loaded = load_model(source)
        judged = read_judged({"dense": loaded}, data, allow_partial=True)
        config = evaluation_config(loaded, EVALUATION_BATCH)
        rows = np.random.default_rng(42).permutation(len(judged.train))[:texts]
        seen = make_dataset(loaded.task, loaded.tokenizer, judged.train.take(np.sort(rows)), config)
        dev = make_dataset(loaded.task, loaded.tokenizer, judged.examples, config)
        self.kind = loaded.task.kind
        self.model = with_fixed_gates(in_float32(loaded.model))
        self.dev = [dev[index][:2] for index in range(len(dev))]
        self.wanted = self._outputs()
        order = np.random.default_rng(42).permutation(len(seen))
        self.removal = StructuredRemoval(self.model, self.kind, [seen[int(index)] for index in order],
                                         -(-JUDGED // EVALUATION_BATCH))  # fmt: skip
        for _ in self.removal.look():
            pass
        self.costs = weights_left(self.removal)

    def choices(self, share: float, steps: int, seed: int) -> Iterator[tuple[str, Levels]]:
        """How levels are chosen → levels, all of which leave as many weights as equal shares do, or fewer."""
        removal = self.removal
        alike = equal_shares(removal, share)
        yield "the same share of every layer", alike
        budget = float(sum(cost[level] for cost, level in zip(self.costs, alike, strict=True)))
        measured = list(measured_weights(self.costs, removal.errors, removal.loss))
        for start, weights in (("equal weights", None), ("measured weights", measured)):
            found = list(search_levels(self.costs, removal.errors, budget, removal.loss, steps, seed, weights))
            yield f"{start}, no draws", found[0].levels
            yield f"{start}, {steps} draws", found[-1].levels

    def judge(self, levels: Levels) -> dict[str, float]:
        """Loss as the search sees it and, of the model pruned so, on development texts, with its accuracy in %."""
        seen = self.removal.loss(levels)
        for _ in self.removal.prune(levels):
            pass
        outputs = self._outputs()
        self.removal.restore()
        labels = [labels for _, labels in self.dev]
        right = sum(int((np.argmax(out, -1) == label).sum()) for out, label in zip(outputs, labels, strict=True))
        count = sum(map(len, labels))
        lost = sum(float(np.sum(soft_loss(self.kind, wanted, out, 1.0, None)))
                   for wanted, out in zip(self.wanted, outputs, strict=True))  # fmt: skip
        return {"weights_gone": share_gone(self.costs, levels), "searched_loss": seen, "dev_loss": lost / count,
                "accuracy": 100 * right / count}  # fmt: skip

    def _outputs(self) -> list[np.ndarray]:
        return [keras.ops.convert_to_numpy(self.model.predict_on_batch(inputs)) for inputs, _ in self.dev]


def measure(source: str, data: str, texts: Sequence[int], steps: int, seed: int) -> pd.DataFrame:
    """A row for each number of texts, share and choice of levels."""
    rows = []
    with progress_bar("choices of levels", len(texts) * len(SHARES) * 5) as advance:
        for number in texts:
            encoder = Encoder(source, data, number)
            for share in SHARES:
                for name, levels in encoder.choices(share, steps, seed):
                    rows.append({"texts": number, "share": share, "levels": name, **encoder.judge(levels)})
                    advance(f"{number} texts, {share:.0%}", 1)
    return pd.DataFrame(rows)


def run(words: Sequence[str] | None = None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.level_search", description=__doc__)
    parser.add_argument("model", help="the folder of a fine-tuned encoder")
    parser.add_argument("-d", "--data", default="embedded", help="as of training")
    parser.add_argument("--texts", type=int, nargs="+", default=[512, 1024], help="training texts to look at")
    parser.add_argument("--steps", type=int, default=60, help="draws of a search")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("-o", "--output-dir", default="results/benchmarks", help="folder of the CSV file")
    options = parser.parse_args(words)
    found = measure(options.model, options.data, options.texts, options.steps, options.seed)
    write_csv_atomic(Path(options.output_dir) / "level_search.csv", found)
    print(found.round(4).to_string(index=False))


if __name__ == "__main__":
    run()
