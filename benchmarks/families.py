"""What every family of encoders can do, on the small models of the tests: loading, parity, pruning, shrinking, ONNX,
8 bits, LIME."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import main
from gated_bert import GatedBertConfig, load_model, shrink, train
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_fused import EMBEDDINGS
from gated_bert.compression.parity import check_inputs, largest_difference
from gated_bert.compression.quantize import quantize
from gated_bert.compression.source import load_source
from gated_bert.explain.lime import explain_texts
from gated_bert.models.family import get_family, known_families
from gated_bert.models.folder import LoadedModel
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.tasks.embedded import embedded_examples

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
LENGTHS = (5, 11, 16)
DOCUMENTS = 4


def parity(family: str) -> float:
    """The largest difference of a logit from transformers', on batches with padding and pairs."""
    folder, reference = str(FIXTURES / "families" / family), np.load(FIXTURES / "family_reference.npz")
    config = read_pretrained_architecture(folder).replace(num_outputs=3)
    model = get_family(family).model()(config)
    load_pretrained(model, folder)
    found = []
    for length in LENGTHS:
        inputs = {name: reference[f"{family}/{length}/{name}"] for name in config.input_names}
        found.append(np.abs(model.predict_on_batch(inputs) - reference[f"{family}/{length}/logits"]).max())
    return float(max(found))


def trained(family: str, folder: Path, examples: int) -> LoadedModel:
    """The model of a run from the family's checkpoint and its head, half of heads and neurons pruned by movement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(GatedBertConfig(
            model_size="tiny", pretrained=str(FIXTURES / "families" / family), task="mnli", data="embedded", epochs=2,
            batch_size=8, max_len=16, train_examples=examples, pruning_method="movement", pattern="head_neuron",
            scope="layer", schedule="linear", end_sparsity=0.5, pruning_start_epoch=1, pruning_end_epoch=2,
        ), folder)  # fmt: skip
    return load_model(folder / "model")


def measure(options) -> list[Figure]:
    """The figures of every family."""
    figures = []
    for family in known_families():
        with tempfile.TemporaryDirectory() as place:
            figures += _of(family, Path(place), 16 if options.quick else 256)
    return figures


def _of(family: str, place: Path, examples: int) -> list[Figure]:
    figures = [Figure(f"{family}: largest difference of a logit from transformers'", parity(family), "", "≤ 1e-4")]
    loaded = trained(family, place / "run", examples)
    inputs, model = check_inputs(loaded), loaded.model
    small = shrink(model)
    closed = np.mean([np.mean(np.asarray(layer.mask_variable) == 0) for layer in model.gated_layers()
                      if layer.layer_index is not None])  # fmt: skip
    figures += [
        Figure(f"{family}: closed weights of the encoder", float(closed), "", "", "half of heads and neurons"),
        Figure(f"{family}: parameters, shrunk / dense", small.architecture.num_parameters
               / model.architecture.num_parameters, "×"),
        Figure(f"{family}: largest difference of a logit, shrunk", largest_difference(model, small, inputs), "",
               "≤ 1e-5"),
    ]  # fmt: skip
    shrunk = LoadedModel(small, loaded.tokenizer, loaded.task, small.architecture, {})
    for graph in ("standard", *(["fused"] if family in EMBEDDINGS else [])):
        difference = export_onnx(place / f"{graph}.onnx", shrunk, graph)
        figures.append(Figure(f"{family}: largest difference of a logit, ONNX {graph}", difference, "", "≤ 1e-4"))
    eight = quantize(place / "standard.onnx", place / "int8.onnx").model
    documents, _ = embedded_examples("sst2")
    found = explain_texts(load_source(FIXTURES / "families" / family), documents.texts[:DOCUMENTS], [[0]] * DOCUMENTS)
    fidelity = np.mean([each.fidelity for _, document in found for each in document])
    return [
        *figures,
        Figure(f"{family}: largest difference of a logit, 8 bits", largest_difference(model, eight, inputs), ""),
        Figure(f"{family}: mean R² of LIME's explanations", float(fidelity), "", "", f"{DOCUMENTS} documents"),
    ]


if __name__ == "__main__":
    main("families", measure)
