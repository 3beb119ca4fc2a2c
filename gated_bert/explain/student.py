"""Students of BERT: classifiers of averaged token embeddings, what their logits rest on, and a loss that draws this to
BERT's explanations."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import stats

from gated_bert.support.tensors import Shape, Tensor

TEMPERATURE = 0.1
"""Temperature of soft ranks in standard deviations; at a much larger one they are the values themselves again."""

_CONSTANT = 1e-10
"""Variance, of values whose largest is ±1, below which they are equal but for rounding."""
_NO_RANKS = 1e-6
"""Squared length of centred soft ranks below which they are equal but for rounding."""


@keras.saving.register_keras_serializable(package="gated_bert")
class Student(keras.Model):
    """Token embedding, mean over the tokens, a ReLU layer, dropout, and logits.

    Its weights exist as soon as it is made, drawn with Keras' seed.

    Args:
        vocab_size: rows of the embedding.
        classes: outputs.
        embedding_size: columns of the embedding.
        hidden_size: neurons of the ReLU layer.
        dropout_rate: dropout of these.
        **kwargs: `name` and `dtype` of `keras.Model`.
    """

    def __init__(
        self,
        vocab_size: int,
        classes: int,
        embedding_size: int = 128,
        hidden_size: int = 256,
        dropout_rate: float = 0.1,
        name: str = "student",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.sizes = {"vocab_size": vocab_size, "classes": classes, "embedding_size": embedding_size,
                      "hidden_size": hidden_size, "dropout_rate": dropout_rate}  # fmt: skip
        self.embedding = keras.layers.Embedding(vocab_size, embedding_size)
        # Without its ReLU: attributions need the sign of what goes into that.
        self.hidden = keras.layers.Dense(hidden_size)
        self.dropout = keras.layers.Dropout(dropout_rate)
        self.classifier = keras.layers.Dense(classes)
        self.build(None)

    def build(self, input_shape: Shape | None = None) -> None:
        self.embedding.build(None)
        self.hidden.build((None, self.sizes["embedding_size"]))
        self.classifier.build((None, self.sizes["hidden_size"]))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Classifies a batch.

        Args:
            inputs: dictionary of `input_ids` and `attention_mask`, int [batch, length]; nothing else in it is read.
            training: whether dropout is active.

        Returns:
            Logits [batch, classes].
        """
        tokens, mask = self._embedded(inputs)
        return self.from_embeddings(tokens, mask, training=training)

    def from_embeddings(self, tokens: Tensor, mask: Tensor, training: bool | None = None) -> Tensor:
        """Logits from embeddings [batch, length, embedding] and a mask [batch, length] of 0 and 1."""
        inner = ops.relu(self._before_relu(tokens, mask))
        return self.classifier(self.dropout(inner, training=training))

    def attributions(self, inputs: Tensor) -> Tensor:
        """Gradient × input: what each token adds to each logit, to first order, without dropout.

        Mean and ReLU have simple derivatives, ∂ logit_c / ∂ e_t = W₁ diag(z > 0) W₂[:, c] / n, so that the gradient
        is written out here, in terms that have gradients of their own.

        Args:
            inputs: as for `call`.

        Returns:
            [batch, length, classes]; 0 for padding.
        """
        tokens, mask = self._embedded(inputs)
        active = ops.cast(self._before_relu(tokens, mask) > 0, tokens.dtype)
        slopes = ops.einsum("eh,bhc->bec", self.hidden.kernel, active[:, :, None] * self.classifier.kernel[None])
        return ops.einsum("bte,bec->btc", _shares(mask)[:, :, None] * tokens, slopes)

    def _embedded(self, inputs):
        return self.embedding(inputs["input_ids"]), ops.cast(inputs["attention_mask"], self.compute_dtype)

    def _before_relu(self, tokens, mask):
        return self.hidden(ops.sum(_shares(mask)[:, :, None] * tokens, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **self.sizes}


def _shares(mask):
    """1 / number of tokens for tokens, 0 for padding: [batch, length]."""
    return mask / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)


def explanation_loss(weights: Tensor, attributions: Tensor) -> Tensor:
    """(1 − cos) + (1 − ρ) between explanations, over the tokens that LIME explains, the mean over the classes.

    LIME weighs words: special tokens, marks between words and padding have a weight of 0 for every class, and are not
    looked at. Where cosine or ρ is not defined, all values being equal, it counts as 0.

    Args:
        weights: LIME's, [batch, length, classes].
        attributions: the student's, of the same shape.

    Returns:
        [batch], from 0 to 4.
    """
    mask = ops.cast(ops.any(weights != 0, axis=-1, keepdims=True), attributions.dtype)
    one, other = (_to_unit(values * mask) for values in (attributions, weights))
    cosines = _cosines(one, other, _CONSTANT)
    ranks, others = (_centred(soft_ranks(values, mask), mask) for values in (one, other))
    return ops.mean(2 - cosines - _cosines(ranks, others, _NO_RANKS), axis=-1)


def soft_ranks(values: Tensor, mask: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Ranks that have gradients: Σⱼ σ((xᵢ − xⱼ) / τ), τ = temperature · std(x).

    Of values far apart these are the ranks from 1, less a half; equal values share their ranks' mean. Of values that
    all are equal, the gradient is 0.

    Args:
        values: [batch, length, columns], each column of a row ranked for itself; the largest near ±1.
        mask: [batch, length, 1], 0 for what is not ranked.
        temperature: see above.

    Returns:
        The shape of `values`; meaningless where the mask is 0.
    """
    squares = ops.sum(ops.square(_centred(values, mask)), axis=1, keepdims=True)
    variance = squares / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)
    # No root of 0, whose derivative is infinite.
    deviation = ops.sqrt(ops.where(variance > _CONSTANT, variance, 1))
    scaled = values / (temperature * deviation)
    above = ops.sigmoid(scaled[:, :, None, :] - scaled[:, None, :, :])
    return ops.sum(above * mask[:, None, :, :], axis=2)


def _to_unit(values):
    """Values whose largest is ±1; its size is a constant to the gradient, as cosine and ranks do not depend on it."""
    largest = ops.stop_gradient(ops.max(ops.abs(values), axis=1, keepdims=True))
    return values / ops.where(largest > 0, largest, 1)


def _centred(values, mask):
    count = ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)
    return (values - ops.sum(values * mask, axis=1, keepdims=True) / count) * mask


def _cosines(one, other, least: float):
    """Cosine of each column, [batch, columns]; 0 where a squared length is below `least`."""
    squares = [ops.sum(ops.square(values), axis=1) for values in (one, other)]
    known = ops.logical_and(squares[0] > least, squares[1] > least)
    length = ops.sqrt(ops.where(known, squares[0] * squares[1], 1))
    return ops.where(known, ops.sum(one * other, axis=1), 0) / length


def explanation_similarity(weights: np.ndarray, attributions: np.ndarray) -> dict[str, float]:
    """How alike a student's explanation of one document is to BERT's, over the tokens that LIME explains.

    Args:
        weights: LIME's, [tokens, classes].
        attributions: the student's, of the same shape.

    Returns:
        `cosine` and `spearman` (its ranks exact), means over the classes; NaN where none of them is defined.
    """
    explained = (weights != 0).any(axis=1)
    values: dict[str, list[float]] = {"cosine": [], "spearman": []}
    for one, other in zip(weights[explained].T.astype(float), attributions[explained].T.astype(float), strict=True):
        size = np.linalg.norm(one) * np.linalg.norm(other)
        values["cosine"] += [one @ other / size] if size else []
        ranked = len(one) > 1 and np.ptp(one) and np.ptp(other)
        values["spearman"] += [stats.spearmanr(one, other).statistic] if ranked else []
    return {name: float(np.mean(each)) if each else math.nan for name, each in values.items()}
