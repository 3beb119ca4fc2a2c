"""Heads and neurons removed without training, here and by other tools, from one fine-tuned BERT at the same sizes.

`KERAS_BACKEND=jax python -m benchmarks.structured_peers MODEL -d glue`; needs jax, torch, transformers, torch-pruning
and onnxsim. TensorFlow and Triton, which the others bring, end each other's processes.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import torch
import torch_pruning
import transformers
from onnxruntime.transformers import optimizer

from benchmarks.figures import Figure, table, write_figures
from benchmarks.level_search import equal_shares, share_gone, weights_left
from benchmarks.timing import environment_line
from gated_bert.compression.benchmark import EVALUATION_BATCH, JudgedOn, read_judged
from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.predict import evaluation_config
from gated_bert.models.folder import LoadedModel, load_model
from gated_bert.pruning.level_search import measured_weights, search_levels
from gated_bert.pruning.structured import StructuredRemoval
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.pipeline import BucketedDataset

SHARES = (0.25, 0.5)
"""Shares of heads and neurons that go."""
TEXTS, STEPS = 1024, 100
NAMES = ("input_ids", "attention_mask", "token_type_ids")
Predict = Callable[[dict[str, np.ndarray]], np.ndarray]


class Peers:
    """One dense model as everybody has it, and what everybody is judged on."""

    def __init__(self, source: str, data: str, folder: Path):
        self.source, self.folder = source, folder
        loaded = load_model(source)
        self.judged: JudgedOn = read_judged({"dense": loaded}, data, allow_partial=True)
        self.dev = self._dataset(loaded, self.judged.examples)
        rows = np.sort(np.random.default_rng(42).permutation(len(self.judged.train))[:TEXTS])
        self.seen = self._dataset(loaded, self.judged.train.take(rows))
        export_hugging_face(folder / "hf", loaded)
        self.dense = self.torch_model()
        self.onnx = self._export(self.dense)

    def loaded(self) -> LoadedModel:
        return load_model(self.source)

    def torch_model(self) -> transformers.PreTrainedModel:
        found = transformers.AutoModelForSequenceClassification.from_pretrained(
            self.folder / "hf", attn_implementation="eager"
        )
        return found.eval()

    def accuracy(self, predict: Predict) -> float:
        """In per cent of the development examples."""
        right = sum(int((np.argmax(predict(x), -1) == y).sum()) for x, y in batches(self.dev))
        return 100 * right / len(self.judged.examples)

    def _dataset(self, loaded: LoadedModel, examples: Examples) -> BucketedDataset:
        config = evaluation_config(loaded, EVALUATION_BATCH)
        return make_dataset(loaded.task, loaded.tokenizer, examples, config)

    def _export(self, model: torch.nn.Module) -> onnx.ModelProto:
        inputs = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in NAMES)
        path, axes = str(self.folder / "dense.onnx"), dict.fromkeys(NAMES, {0: "batch", 1: "length"})
        torch.onnx.export(model, inputs, path, input_names=list(NAMES), output_names=["logits"], dynamo=False,
                          dynamic_axes=axes, opset_version=17)  # fmt: skip
        # onnxsim sees heads and neurons where ONNX Runtime has fused attention and GELU.
        fused = optimizer.optimize_model(path, "bert", model.config.num_attention_heads, model.config.hidden_size)
        return fused.model


def batches(dataset: BucketedDataset) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    for index in range(len(dataset)):
        yield dataset[index][:2]


def of_torch(model: torch.nn.Module) -> Predict:
    def predict(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return model(**{name: torch.tensor(inputs[name]).long() for name in NAMES}).logits.numpy()

    return predict


def of_onnx(model: onnx.ModelProto) -> Predict:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def predict(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(None, {name: inputs[name].astype(np.int64) for name in NAMES})[0]

    return predict


def ours(peers: Peers, share: float, order: str, search: bool) -> tuple[Predict, float]:
    """Second order with the search of levels, or the same share of every layer."""
    model = peers.loaded().model
    seen = [(inputs, None) for inputs, _ in batches(peers.seen)]
    removal = StructuredRemoval(model, "classification", seen, len(seen) // 4, order)
    for _ in removal.look():
        pass
    costs = weights_left(removal)
    if search:
        budget = (1 - share) * sum(cost[0] for cost in costs)
        errors = removal.errors
        weights = list(measured_weights(costs, errors, removal.loss))
        levels = list(search_levels(costs, errors, budget, removal.loss, STEPS, 0, weights))[-1].levels
    else:
        levels = equal_shares(removal, share)
    for _ in removal.prune(levels):
        pass
    return model.predict_on_batch, share_gone(costs, levels)


def by_torch_pruning(peers: Peers, share: float, importance: str) -> tuple[Predict, float]:
    """Torch-Pruning's dependency graph: heads by `prune_num_heads`, neurons by channels of the first matrix."""
    model = copy.deepcopy(peers.dense)
    layers = model.base_model.encoder.layer
    parts = [layer.attention.self for layer in layers]
    heads = {
        matrix: model.config.num_attention_heads for part in parts for matrix in (part.query, part.key, part.value)
    }
    kept = [model.classifier, model.base_model.pooler, model.base_model.embeddings]
    kept += [module for layer in layers for module in (layer.attention.output.dense, layer.output.dense)]
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in NAMES}
    ranks = {"magnitude": torch_pruning.importance.GroupMagnitudeImportance(),
             "Taylor": torch_pruning.importance.GroupTaylorImportance()}  # fmt: skip
    pruner = torch_pruning.pruner.BasePruner(
        model, example, importance=ranks[importance], pruning_ratio=share, ignored_layers=kept, num_heads=heads,
        prune_num_heads=True, prune_head_dims=False, head_pruning_ratio=share, output_transform=lambda out: out.logits,
    )  # fmt: skip
    if importance == "Taylor":
        for inputs, labels in batches(peers.seen):
            given = {name: torch.tensor(inputs[name]).long() for name in NAMES}
            model(**given, labels=torch.tensor(labels).long()).loss.backward()
    before = encoder_weights(model)
    pruner.step()
    for attention in parts:
        attention.num_attention_heads = pruner.num_heads[attention.query]
        attention.all_head_size = attention.query.out_features
    return of_torch(model.eval()), 1 - encoder_weights(model) / before


def encoder_weights(model: torch.nn.Module) -> int:
    return sum(weight.numel() for name, weight in model.base_model.encoder.named_parameters() if weight.ndim == 2)


def by_onnxsim(peers: Peers, share: float, activations: bool) -> tuple[Predict, float]:
    """onnxsim's neurons and heads by magnitude, or by magnitude × activations (Wanda)."""
    calibration = [{name: inputs[name].astype(np.int64) for name in NAMES} for inputs, _ in batches(peers.seen)]
    more = {"calibration_data": calibration} if activations else {}
    neurons, heads = (
        (onnxsim.apply_structured_wanda_pruning, onnxsim.apply_attention_head_wanda_pruning) if activations
        else (onnxsim.apply_structured_pruning, onnxsim.apply_attention_head_pruning)
    )  # fmt: skip
    before = graph_weights(peers.onnx)
    pruned = heads(neurons(peers.onnx, sparsity=share, **more), sparsity=share, **more)
    return of_onnx(pruned), 1 - graph_weights(pruned) / before


def graph_weights(model: onnx.ModelProto) -> int:
    """Weights of the encoder's matrices; of pooler and head ONNX Runtime makes Gemm."""
    taken = {name for node in model.graph.node if node.op_type in ("MatMul", "Attention") for name in node.input}
    matrices = [array.dims for array in model.graph.initializer if array.name in taken and len(array.dims) == 2]
    return sum(int(np.prod(sides)) for sides in matrices)


TOOLS: dict[str, Callable[[Peers, float], tuple[Predict, float]]] = {
    "gated_bert, second order and search": lambda peers, share: ours(peers, share, "obs", True),
    "gated_bert, second order, all layers alike": lambda peers, share: ours(peers, share, "obs", False),
    "gated_bert, magnitude": lambda peers, share: ours(peers, share, "magnitude", False),
    "Torch-Pruning, magnitude": lambda peers, share: by_torch_pruning(peers, share, "magnitude"),
    "Torch-Pruning, Taylor": lambda peers, share: by_torch_pruning(peers, share, "Taylor"),
    "onnxsim, magnitude": lambda peers, share: by_onnxsim(peers, share, False),
    "onnxsim, magnitude × activations": lambda peers, share: by_onnxsim(peers, share, True),
}
"""Who removes → a function (peers, share of the units) → predictions, and the share of the encoder's weights gone."""


def measure(source: str, data: str) -> list[Figure]:
    """Accuracy of everybody's model with a quarter and with half of heads and neurons gone."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(source, data, Path(folder))
        dense = {"gated_bert": peers.loaded().model.predict_on_batch, "transformers": of_torch(peers.dense),
                 "ONNX Runtime": of_onnx(peers.onnx)}  # fmt: skip
        for name, predict in dense.items():
            figures.append(Figure(f"dense, in {name}", peers.accuracy(predict), "%", "", peers.judged.label))
        for share in SHARES:
            for name, remove in TOOLS.items():
                predict, gone = remove(peers, share)
                details = f"{100 * gone:.1f} % of the encoder's weights gone, no training"
                figures.append(Figure(f"{name}, {share:.0%} of the units", peers.accuracy(predict), "%", "", details))
                print(figures[-1].name, figures[-1].shown, details, flush=True)
    return figures


def run(words: Sequence[str] | None = None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structured_peers", description=__doc__)
    parser.add_argument("model", help="the folder of a fine-tuned BERT")
    parser.add_argument("-d", "--data", default="embedded", help="as of training")
    parser.add_argument("-o", "--output-dir", default="results/benchmarks", help="folder of the CSV file")
    options = parser.parse_args(words)
    figures = measure(options.model, options.data)
    write_figures(Path(options.output_dir), "structured_peers", figures, environment_line())
    print(table(figures), environment_line(), sep="\n")


if __name__ == "__main__":
    run()
