"""What a user of JAX alone does; run by test_jax_backend.py where TensorFlow cannot be imported.

    python without_tensorflow.py FOLDER

FOLDER holds the model folder `start`. Leaves masks, a run from `start`, and what commands make of a run of its own.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.config.pruning_types import PRUNING_TYPES
from gated_bert.config.space import PATTERNS

SIZES = ("-m", "tiny", "--num-layers", "1", "--d-model", "16", "--num-heads", "2", "--dff", "32")
DATA = ("-d", "embedded", "--train-examples", "48", "-ml", "16", "-b", "16", "-l", "1e-3")
RECORD = {
    "data": "embedded", "train_examples": 48, "max_len": 16, "batch_size": 16, "learning_rate": 1e-3,
    "epochs": 2, "pruning_start_epoch": 2, "pruning_end_epoch": 2, "end_sparsity": 0.5, "pruning_method": "movement",
    "movement_pruning_frequency_steps": 2,
}  # fmt: skip
INPUTS = {
    "input_ids": np.arange(5, 37).reshape(4, 8) % 30,
    "token_type_ids": np.zeros((4, 8), np.int32),
    "attention_mask": np.ones((4, 8), np.int32),
}


def masks_of_all_patterns() -> dict[str, np.ndarray]:
    """Pattern and matrix → the mask at 50 % of kernels that NumPy draws, in which many weights are equal."""
    from keras import ops

    from gated_bert.models.architecture import BertConfig
    from gated_bert.models.bert import BertClassifier
    from gated_bert.pruning.pruner import Pruner

    rng, masks = np.random.default_rng(0), {}
    model = BertClassifier(BertConfig.uniform(2, 32, 4, 64, vocab_size=40))
    for layer in model.gated_layers():
        layer.raw_kernel.assign(rng.normal(size=layer.raw_kernel.shape).round(1).astype(np.float32))
    types = [{"pruning_type": number, "tilesparsity_variant": "code"} for number in PRUNING_TYPES]
    for options in [*({"pattern": pattern} for pattern in PATTERNS), *types]:
        config = GatedBertConfig(pruning_method="magnitude", block_size=(8, 8), granularity=8, **options)
        layers = model.gated_layers(config.prunable_roles)
        for layer in layers:
            layer.gates.assign(np.ones(layer.gates.shape, np.float32))
        Pruner.from_config(config, layers, [4, 4]).update(0.5, step=3)
        masks |= {f"{options} {layer.path}": ops.convert_to_numpy(layer.gates) for layer in layers}
    return masks


def train_from(start: Path, folder: Path):
    """Trains from a model folder by movement pruning."""
    from gated_bert.experiments.runs.run import train

    train(GatedBertConfig(pretrained=str(start), **RECORD), folder)


def run(*words: str, status: int = 0):
    assert main(list(words)) == status, words


def user_of_jax(folder: Path):
    """The commands, and what they say about TensorFlow."""
    os.chdir(folder)
    from gated_bert.models.folder import load_model

    np.savez("masks.npz", **masks_of_all_patterns())
    train_from(folder / "start", folder / "from_start")
    neurons = ("--pattern", "neuron", "-f", "0.5", "-ps", "1", "-pe", "1", "-e", "1")
    run("train", "-p", "magnitude", *neurons, *SIZES, *DATA, "--run-dir", "run")
    np.save("logits.npy", load_model("run/model").model.predict_on_batch(INPUTS))
    run("shrink", "run/model", "small")
    run("compare", "run", "-o", "compared")
    run("oneshot", "--strategy", "LayerGradCAM", "--sparsities", "50", "-e", "1", *SIZES, *DATA, "-o", "at_once")
    Path("texts.tsv").write_text("sentence\na dull film\na lively film\n", encoding="utf-8")
    run("predict", "small", "texts.tsv", "-o", "predicted.csv")
    run("export", "run/model", "refused.onnx", status=2)
    run("compress", "-t", "sst2", *DATA, "-o", "compressed", status=2)


if __name__ == "__main__":
    sys.modules["tensorflow"] = None
    from gated_bert.experiments.sweeps import sweep
    from tests.experiments.conftest import _Here

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "LocalBackend", _Here)
        user_of_jax(Path(sys.argv[1]).resolve())
