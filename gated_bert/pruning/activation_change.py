"""Pruning by activation change: heads and neurons that answer two batches alike go before fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops

from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.encoder import EncoderBlock, padding_bias
from gated_bert.models.gated_dense import GatedDense
from gated_bert.support.tensors import Tensor


@dataclass(frozen=True)
class ActivationChanges:
    """Mean absolute change of every activation between batches.

    Attributes:
        layers: per encoder layer, name → array: `intermediate` [neurons], before the activation function, of gated
            units behind it; `context`
            [heads × value_dim]; `attention_weights` [heads]; `attention_output` and `ffn_output` [hidden_size].
            What a layer has lost as a whole is missing.
        pooler: [hidden_size]; empty where the model has no pooler.
        heads: per layer, the mean of `context` over each head's dimensions, [heads].
    """

    layers: tuple[dict[str, np.ndarray], ...]
    pooler: np.ndarray
    heads: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class KeptLayer:
    """Which heads, bool [heads], and neurons, bool [neurons], of an encoder layer stay."""

    heads: np.ndarray
    neurons: np.ndarray


def activation_changes(model: EncoderClassifier, batches: Sequence[dict[str, np.ndarray]]) -> ActivationChanges:
    """How much activations differ between consecutive batches, in inference mode.

    The change of a unit is the mean over positions of the mean over the batch of |a₂ − a₁|, where both batches have a
    token; of more than two batches, the mean over consecutive pairs.

    Args:
        model: a model with any gates; it is not changed.
        batches: at least two dictionaries of the model's inputs, int [batch, length],
            of as many sequences each; shorter ones are padded to the longest.

    Raises:
        ValueError: fewer than two batches, or batches of different numbers of sequences.
    """
    if len(batches) < 2 or len({len(batch["input_ids"]) for batch in batches}) > 1:
        raise ValueError("activation_changes: at least two batches of equally many sequences are needed")
    length = max(batch["input_ids"].shape[1] for batch in batches)
    batches = [_padded(batch, length) for batch in batches]
    sums: dict[tuple, np.ndarray] = {}
    before = tracked_activations(model, batches[0])
    for first, second in zip(batches, batches[1:], strict=False):
        after = tracked_activations(model, second)
        real = (first["attention_mask"] * second["attention_mask"]).astype(bool)
        for key, old in before.items():
            sums[key] = sums.get(key, 0.0) + _change(key[1], np.abs(after[key] - old), real)
        before = after
    means = {key: total / (len(batches) - 1) for key, total in sums.items()}
    count = len(model.encoder.blocks)
    layers = tuple({name: mean for (index, name), mean in means.items() if index == layer} for layer in range(count))
    heads = tuple(
        layer["context"].reshape(sizes.num_heads, -1).mean(axis=1) if "context" in layer else np.empty(0)
        for layer, sizes in zip(layers, model.architecture.layers, strict=True)
    )
    return ActivationChanges(layers, means.get((count, "pooler"), np.empty(0)), heads)


def tracked_activations(model: EncoderClassifier, batch: dict[str, np.ndarray]) -> dict[tuple[int, str], np.ndarray]:
    """(layer, name) → activation of a batch in inference; the pooler counts as the layer after the last.

    Returns:
        Arrays [batch, length, units]; of `attention_weights` [batch, heads, length, length], of `pooler`
        [batch, hidden_size].
    """
    encoder = model.encoder
    found: dict[tuple[int, str], Tensor] = {}
    hidden = encoder.embed(batch, training=False)
    bias = padding_bias(ops.convert_to_tensor(batch["attention_mask"]))
    for index, block in enumerate(encoder.blocks):
        hidden = _track_block(block, hidden, bias, index, found)
    if encoder.pooler is not None:
        found[len(encoder.blocks), "pooler"] = encoder.pool(hidden, batch["attention_mask"], training=False)
    return {key: np.asarray(ops.convert_to_numpy(value), dtype=np.float32) for key, value in found.items()}


def _track_block(block: EncoderBlock, hidden, bias, index: int, found: dict):
    attention, ffn = block.attention, block.ffn
    attended = block.attention_input(hidden)
    if attention.query is not None:
        attended, found[index, "attention_weights"] = attention.attend(attended, bias, training=False)
        found[index, "context"] = attended
    found[index, "attention_output"] = attention.output_dense(attended)
    hidden = block.after_attention(hidden, found[index, "attention_output"])
    emitted = block.ffn_input(hidden)
    if ffn.intermediate is not None:
        inner = ffn.intermediate(emitted, training=False)
        emitted = ffn.activation(inner)
        found[index, "intermediate"] = inner if ffn.columns_per_neuron == 1 else emitted
    found[index, "ffn_output"] = ffn.output_dense(emitted)
    return block.after_ffn(hidden, found[index, "ffn_output"])


def _padded(batch: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    return {name: np.pad(array, ((0, 0), (0, length - array.shape[1]))) for name, array in batch.items()}


def _change(name: str, difference: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The mean over positions of the mean over the batch; `real` is bool [batch, length]."""
    if name == "pooler":
        return difference.mean(axis=0)
    if name == "attention_weights":
        # A position here is a pair of a query and a key.
        pairs = (real[:, :, None] & real[:, None, :]).reshape(len(real), -1)
        return _masked_mean(difference.transpose(0, 2, 3, 1).reshape(*pairs.shape, -1), pairs)
    return _masked_mean(difference, real)


def _masked_mean(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    counts = real.sum(axis=0)
    sums = np.einsum("bpu,bp->pu", values.astype(np.float64), real.astype(np.float64))
    return (sums[counts > 0] / counts[counts > 0, None]).mean(axis=0)


def kept_units(changes: np.ndarray, threshold: float, scale: str = "raw") -> np.ndarray:
    """Which units reach a threshold: bool [units], at least one of them true.

    Args:
        changes: [units].
        threshold: 0 keeps every unit.
        scale: `raw` compares the changes themselves, `minmax` scales them to [0, 1] first, so that a threshold carries
            over between models; `quantile` takes the threshold for the share of the units that goes.
    """
    changes = np.asarray(changes, dtype=np.float64)
    if not len(changes) or threshold <= 0:
        return np.ones(len(changes), dtype=bool)
    if scale == "minmax":
        spread = np.ptp(changes)
        changes = (changes - changes.min()) / spread if spread else np.ones(len(changes))
    elif scale == "quantile":
        threshold = np.quantile(changes, threshold)
    kept = changes >= threshold
    kept[np.argmax(changes)] = True
    return kept


def kept_layers(
    changes: ActivationChanges, attention: Sequence[float], ffn: Sequence[float], scale: str = "raw"
) -> list[KeptLayer]:
    """What thresholds leave of every layer.

    Args:
        changes: what `activation_changes` found.
        attention: threshold of the heads, per layer.
        ffn: threshold of the neurons, per layer.
        scale: as for `kept_units`.

    Raises:
        ValueError: not one threshold per layer.
    """
    return [
        KeptLayer(kept_units(heads, low, scale), kept_units(layer.get("intermediate", np.empty(0)), least, scale))
        for heads, layer, low, least in zip(changes.heads, changes.layers, attention, ffn, strict=True)
    ]


def close_units(model: EncoderClassifier, kept: Sequence[KeptLayer]) -> None:
    """Closes heads and neurons: their columns, and the rows of the next matrix that read them."""
    for block, layer in zip(model.encoder.blocks, kept, strict=True):
        attention, ffn = block.attention, block.ffn
        projections = attention.projections()
        if projections is not None:
            for projection in projections:
                _close(projection, columns=np.repeat(layer.heads, projection.units // len(layer.heads)))
            _close(attention.output_dense, rows=np.repeat(layer.heads, attention.sizes.value_dim))
        if ffn.intermediate is not None:
            _close(ffn.intermediate, columns=np.repeat(layer.neurons, ffn.columns_per_neuron))
            _close(ffn.output_dense, rows=layer.neurons)


def _close(layer: GatedDense, rows: np.ndarray | None = None, columns: np.ndarray | None = None):
    gates = np.array(ops.convert_to_numpy(layer.mask_variable))
    if rows is not None:
        gates[~rows] = 0
    if columns is not None:
        gates[:, ~columns] = 0
    layer.mask_variable.assign(gates)
