"""LIME in batches over documents against the library's own calls of a Keras model's `predict`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lime.lime_text import LimeTextExplainer
from scipy import special

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.quantize import quantize
from gated_bert.explain.lime import document_seed, explain_texts
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import LoadedModel
from gated_bert.tasks.embedded import embedded_examples, embedded_vocabulary
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

MAX_LEN = 128


def random_model(layers: int, hidden: int, heads: int, neurons: int) -> LoadedModel:
    """A model of AG News of random weights, with the embedded vocabulary."""
    tokenizer = Tokenizer.from_vocab(embedded_vocabulary())
    config = BertConfig.uniform(layers, hidden, heads, neurons, vocab_size=tokenizer.vocab_size, num_outputs=4)
    rng = np.random.default_rng(0)
    model = BertClassifier(config)
    for layer in model.gated_layers():
        layer.raw_kernel.assign(rng.normal(0, 0.1, layer.raw_kernel.shape))
    return LoadedModel(model, tokenizer, TASKS["ag_news"], config, {"config": {"max_len": MAX_LEN}})


def library_words(loaded: LoadedModel, texts: Sequence[str], samples: int, fixed: bool = True) -> list[list[str]]:
    """Words by the library, which asks for a document's samples at a time.

    Args:
        loaded: the model.
        texts: the documents.
        samples: samples of each.
        fixed: whether they are padded to the model's longest input, as in training; else to the longest of them.
    """

    def predict(samples: list[str]) -> np.ndarray:
        encoded = loaded.tokenizer.encode(samples, None, MAX_LEN, cached=False)
        length = MAX_LEN if fixed else int(encoded.lengths.max())
        inputs = BucketedDataset(encoded, None, len(samples), MAX_LEN, buckets=(length,))[0]
        return special.softmax(loaded.model.predict(inputs, batch_size=32, verbose=0).astype(np.float64), axis=1)

    found = []
    for document, text in enumerate(texts):
        explainer = LimeTextExplainer(random_state=document_seed(0, document))
        explanation = explainer.explain_instance(text, predict, (0,), num_features=10, num_samples=samples)
        found.append([word for word, _ in explanation.as_list(0)])
    return found


def own_words(loaded: LoadedModel, texts: Sequence[str], samples: int) -> list[list[str]]:
    """Words by `explain_texts`."""
    found = explain_texts(loaded, texts, [(0,)] * len(texts), num_samples=samples)
    return [list(explanation.words) for _, [explanation] in found]


def sides(loaded: LoadedModel, folder: Path, texts: Sequence[str], samples: int) -> dict[str, Callable[[], object]]:
    """The library, and this package with the same model as Keras, as ONNX file and in 8 bits."""
    export_onnx(folder / "fp32.onnx", loaded, "fused")
    quantize(folder / "fp32.onnx", folder / "int8.onnx")
    # As many as Keras has.
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or None
    files = {f"ONNX {bits}": open_model(folder / f"{bits}.onnx", threads) for bits in ("fp32", "int8")}
    models = {"Keras": loaded, **files}
    if library_words(loaded, texts[:1], samples) != own_words(loaded, texts[:1], samples):
        raise RuntimeError("the words differ from the library's; times of them compare nothing")
    own = {name: lambda model=model: own_words(model, texts, samples) for name, model in models.items()}
    return {
        "library": lambda: library_words(loaded, texts, samples),
        "library, padded to the longest": lambda: library_words(loaded, texts, samples, fixed=False),
        **own,
    }


def measure(options) -> list[Figure]:
    """Documents a second over the library's with Keras' predict, 500 samples each, the same threads."""
    sizes, samples, count, repeats = (3, 384, 12, 1536), 500, 2, 3
    if options.quick:
        sizes, samples, count, repeats = (2, 64, 2, 128), 50, 2, 2
    news = embedded_examples("ag_news")[1]["validation"].texts
    # Two at a time are as long as real news, about 40 words.
    texts = [" ".join(news[2 * index : 2 * index + 2]) for index in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        times = interleave(sides(random_model(*sizes), Path(folder), texts, samples), repeats)
    figures = []
    for name in ("Keras", "ONNX fp32", "ONNX int8"):
        for base in ("library", "library, padded to the longest"):
            value, details = ratio(times[base], times[name])
            goal = "≥ 5" if (name, base) == ("ONNX fp32", "library") else ""
            figures.append(Figure(f"LIME documents/s, {name} / {base}", value, "×", goal, details))
    return figures


if __name__ == "__main__":
    main("lime", measure)
