"""Exported models against transformers' BERT exported by PyTorch and optimised by ONNX Runtime; needs both."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from gated_bert.compression.onnx_fused import fused_graph
from gated_bert.compression.onnx_model import session_options
from gated_bert.compression.onnx_standard import standard_graph
from gated_bert.compression.quantize import quantize_dynamically
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.pretrained import load_pretrained

SHAPES = ((1, 32), (1, 128), (8, 128))
VOCABULARY = 30522

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def peer_files(folder: Path, sizes: dict[str, int]) -> Path:
    """transformers' BERT of random weights in `folder`, and its optimised export `peer.onnx`."""
    import torch
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import BertConfig as PeerConfig
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    # The optimiser knows this attention's graph.
    config = PeerConfig(vocab_size=VOCABULARY, attn_implementation="eager", **sizes)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    ids = torch.ones(1, 8, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS}
    torch.onnx.export(model, (ids, ids, 0 * ids), folder / "plain.onnx", input_names=list(INPUTS),
                      output_names=["logits"], dynamic_axes=axes, opset_version=17, dynamo=False)  # fmt: skip
    fused = optimize_model(str(folder / "plain.onnx"), "bert", num_heads=sizes["num_attention_heads"],
                           hidden_size=sizes["hidden_size"], opt_level=1)  # fmt: skip
    fused.save_model_to_file(str(folder / "peer.onnx"))
    return folder / "peer.onnx"


def measure(options) -> list[Figure]:
    """Latency of both graphs over that of the peer's, fp32 and int8, one thread; and int8 over fp32."""
    import onnx
    import onnxruntime

    quick = options.quick
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    if not quick:
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"peer": peer_files(folder, sizes)}
        own = BertClassifier(BertConfig.uniform(*sizes_of(sizes), vocab_size=VOCABULARY))
        load_pretrained(own, str(folder))
        for kind, make in (("standard", standard_graph), ("fused", fused_graph)):
            files[kind] = folder / f"{kind}.onnx"
            onnx.save(make(own), files[kind])
        for kind, path in list(files.items()):
            files[f"{kind} int8"] = path.with_suffix(".int8.onnx")
            quantize_dynamically(path, files[f"{kind} int8"], reduce_range=False)
        sessions = {name: onnxruntime.InferenceSession(str(path), session_options(1), ["CPUExecutionProvider"])
                    for name, path in files.items()}  # fmt: skip
        share = files["standard int8"].stat().st_size / files["standard"].stat().st_size
    figures = [Figure("int8 / fp32 size, standard graph", share, "×", "≤ 0.3", "size of the file")]
    for batch, length in SHAPES:
        figures += compare(sessions, batch, length, 3 if quick else 31)
    return figures


def sizes_of(sizes: dict[str, int]) -> tuple[int, int, int, int]:
    """Layers, hidden size, heads and neurons, in the order of `BertConfig.uniform`."""
    return tuple(sizes[f] for f in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"))


def compare(sessions: dict, batch: int, length: int, repeats: int) -> list[Figure]:
    """All sessions side by side on one shape; their outputs are seen to agree first."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (batch, length), dtype=np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    runs = {name: partial(each.run, None, {each.name: inputs[each.name] for each in each.get_inputs()})
            for name, each in sessions.items()}  # fmt: skip
    expected = runs["peer"]()[0]
    for name in ("standard", "fused"):
        if np.abs(runs[name]()[0] - expected).max() > 1e-4:
            raise RuntimeError(f"{name}: logits differ from those of the peer; times of them compare nothing")
    times = interleave(runs, repeats=repeats, warm_up=2)
    figures = []
    for bits in ("", " int8"):
        for kind in ("standard", "fused"):
            value, details = ratio(times[f"{kind}{bits}"], times[f"peer{bits}"])
            label = f"{kind}{bits} / transformers{bits} latency, ({batch}, {length})"
            figures.append(Figure(label, value, "×", "≤ 1.05", details))
    value, details = ratio(times["standard"], times["standard int8"])
    goal = "≥ 1.6" if (batch, length) == (1, 128) else ""
    return [*figures, Figure(f"fp32 / int8 latency, standard graph, ({batch}, {length})", value, "×", goal, details)]


if __name__ == "__main__":
    main("onnx_export", measure)
