"""How the gates of a layer come about: fixed, or from trainable scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
from keras import ops

from gated_bert.config.parts import claim
from gated_bert.support.backend import either
from gated_bert.support.errors import UserError
from gated_bert.support.tensors import Tensor

if TYPE_CHECKING:
    from gated_bert.models.gated_dense import GatedLayer

HARD_CONCRETE_INIT = 2.197
HARD_CONCRETE_TEMPERATURE = 2 / 3
HARD_CONCRETE_LOW, HARD_CONCRETE_HIGH = -0.1, 1.1
HARD_CONCRETE_KEPT = 0.5
HARD_CONCRETE_SHIFT = HARD_CONCRETE_TEMPERATURE * math.log(-HARD_CONCRETE_LOW / HARD_CONCRETE_HIGH)
"""A gate is open with probability σ(log α − this)."""
UNIT_INIT = 10.0
UNIT_SHARPNESS = 0.8
UNIT_ROWS = ("attention_output", "ffn_output")
"""Roles of the matrices that a sublayer ends with, whose rows heads and neurons end in."""


def register_gate_rule(name: str, rule: type[GateRule]) -> None:
    """Makes a gate rule of a user's own known by name, as the `gate_rule` of a criterion.

    Args:
        name: letters, digits and _.
        rule: a subclass of `GateRule`.

    Raises:
        UserError: a name that is taken or no name, or another class.
    """
    if not (isinstance(rule, type) and issubclass(rule, GateRule)):
        raise UserError(f"register_gate_rule: {rule!r} is refused; allowed: a subclass of GateRule")
    claim("gate_rule", name, GATE_RULES)
    GATE_RULES[name] = rule


def get_gate_rule(name: str) -> GateRule:
    """A new gate rule by name.

    Raises:
        ValueError: `name` is not registered.
    """
    if name not in GATE_RULES:
        raise ValueError(f"gate_rule: {name!r} is refused; allowed: {', '.join(GATE_RULES)}")
    return GATE_RULES[name]()


class GateRule:
    """Base class: what a rule adds to a layer, the gates it gives, and what it adds to the loss.

    `variables` names the attributes that `build` puts on the layer; the layer saves them in this order.
    Variables of a rule are float32 and outside autocast in every precision, because steps of the size of a
    score's update vanish in 16 bits.
    """

    variables: tuple[str, ...] = ()

    def build(self, layer: GatedLayer, shape: tuple[int, int]) -> None:
        """Adds the rule's variables to `layer`, whose kernel has `shape` [in, out]."""

    def remove(self, layer: GatedLayer) -> None:
        """Takes off what `build` put on `layer` besides variables."""

    def gates(self, layer: GatedLayer, training: bool) -> Tensor:
        """Gates [in, out] that multiply the kernel."""
        raise NotImplementedError

    def penalty(self, layer: GatedLayer) -> Tensor | None:
        """Scalar added to the training loss, or None."""
        return None

    def _best(self, layer):
        """Which weights a layer never closes, bool [in, out]: `min_kept` of them, those with the largest scores."""
        scores = ops.reshape(ops.stop_gradient(ops.convert_to_tensor(layer.scores)), (-1,))
        places = ops.top_k(scores, self._floor(layer))[1]
        best = ops.scatter_update(ops.zeros_like(scores), places[:, None], ops.ones(places.shape))
        return ops.reshape(best, layer.scores.shape) > 0

    def _is_poor(self, layer, is_open):
        """Whether fewer weights are open than a layer keeps: the best are looked for only then, which costs a sort."""
        return ops.count_nonzero(is_open) < self._floor(layer)

    def _floor(self, layer) -> int:
        return max(1, math.ceil(layer.min_kept * math.prod(layer.scores.shape)))

    def _add_untrained(self, layer, name: str, shape: tuple[int, ...] = (), initializer="zeros"):
        """Adds what no optimiser moves."""
        return layer.add_weight(
            name=name, shape=shape, initializer=initializer, trainable=False, autocast=False, dtype="float32"
        )

    def _add_scores(self, layer, shape, value: float, trainable: bool = True):
        return layer.add_weight(
            name="scores",
            shape=shape,
            initializer=keras.initializers.Constant(value),
            trainable=trainable,
            autocast=False,
            dtype="float32",
        )


class FixedGates(GateRule):
    """The gates are what the mask variable holds."""

    def gates(self, layer: GatedLayer, training: bool | None) -> Tensor:
        return ops.convert_to_tensor(layer.mask_variable)


class StraightThroughGates(GateRule):
    """The mask in the forward pass; scores receive the gradient of the gates, open and closed ones alike.

    Paper: Sanh et al. 2020, Movement Pruning (https://arxiv.org/abs/2005.07683).
    """

    variables = ("scores",)

    def build(self, layer: GatedLayer, shape: tuple[int, int]) -> None:
        layer.scores = self._add_scores(layer, shape, 0.0)

    def gates(self, layer: GatedLayer, training: bool | None) -> Tensor:
        return straight_through(ops.convert_to_tensor(layer.mask_variable), layer.scores)


class WeightedStraightThroughGates(StraightThroughGates):
    """As `straight_through`, but the scores' gradient is multiplied by the gated weights."""

    def gates(self, layer: GatedLayer, training: bool | None) -> Tensor:
        mask = ops.convert_to_tensor(layer.mask_variable)
        weights = ops.stop_gradient(ops.cast(layer.raw_kernel, "float32") * ops.cast(mask, "float32"))
        return ops.add(mask, (layer.scores - ops.stop_gradient(layer.scores)) * weights)


class SoftThresholdGates(GateRule):
    """Gates 1 where σ(scores) > `threshold`, identity gradient to the scores.

    Where that would leave less than `min_kept` of a layer's weights, those with the largest scores stay, as in the
    published code. The scores alone decide: the mask variable is only written, by `with_fixed_gates`. The penalty is
    `penalty_weight` times the mean of σ(scores), of this layer; a mean over layers is the caller's weight
    divided by their number.

    Paper: Sanh et al. 2020, Movement Pruning (https://arxiv.org/abs/2005.07683), and its published code for the
    identity gradient.
    """

    variables = ("scores", "threshold", "penalty_weight")

    def build(self, layer: GatedLayer, shape: tuple[int, int]) -> None:
        layer.scores = self._add_scores(layer, shape, 0.0)
        layer.threshold = self._add_untrained(layer, "threshold")
        layer.penalty_weight = self._add_untrained(layer, "penalty_weight")

    def gates(self, layer: GatedLayer, training: bool | None) -> Tensor:
        above = ops.sigmoid(layer.scores) > layer.threshold
        is_open = either(
            self._is_poor(layer, above), lambda: ops.logical_or(above, self._best(layer)), lambda: above
        )
        return straight_through(ops.cast(is_open, "float32"), layer.scores)

    def penalty(self, layer: GatedLayer) -> Tensor | None:
        return ops.multiply(layer.penalty_weight, ops.mean(ops.sigmoid(layer.scores)))


class HardConcreteGates(GateRule):
    """Stochastic gates in training, their clipped stretched mean otherwise; `scores` holds log α.

    Where that would leave less than `min_kept` of a layer's weights, the closed ones among those with the largest
    scores are half open, as at log α = 0; the paper has no such floor, and whole layers can close. The mask variable
    is only written, by `with_fixed_gates`. The penalty is `penalty_weight` times the expected share of open gates of
    this layer.

    Paper: Louizos et al. 2018, Learning Sparse Neural Networks through L0 Regularization
    (https://arxiv.org/abs/1712.01312), equations 10 to 13.
    """

    variables: tuple[str, ...] = ("scores", "penalty_weight")

    def build(self, layer: GatedLayer, shape: tuple[int, int]) -> None:
        layer.scores = self._add_scores(layer, shape, HARD_CONCRETE_INIT)
        layer.penalty_weight = self._add_untrained(layer, "penalty_weight")
        layer.seed_generator = keras.random.SeedGenerator()

    def remove(self, layer: GatedLayer) -> None:
        layer._tracker.untrack(layer.seed_generator)
        del layer.seed_generator

    def gates(self, layer: GatedLayer, training: bool | None) -> Tensor:
        log_alpha = ops.convert_to_tensor(layer.scores)
        gates = self._drawn(layer, log_alpha) if training else self._stretched(log_alpha)
        is_open = gates > 0.0

        def kept():
            return ops.where(ops.logical_and(self._best(layer), ops.logical_not(is_open)), HARD_CONCRETE_KEPT, gates)

        return either(self._is_poor(layer, is_open), kept, lambda: gates)

    def penalty(self, layer: GatedLayer) -> Tensor | None:
        return ops.multiply(layer.penalty_weight, ops.mean(self._likely(layer.scores)))

    def _drawn(self, layer, log_alpha):
        """Random gates."""
        # The margin keeps both logarithms finite.
        noise = keras.random.uniform(ops.shape(log_alpha), 1e-6, 1 - 1e-6, dtype="float32", seed=layer.seed_generator)
        return self._stretched((ops.log(noise) - ops.log(1.0 - noise) + log_alpha) / HARD_CONCRETE_TEMPERATURE)

    def _stretched(self, log_alpha):
        stretched = ops.sigmoid(log_alpha) * (HARD_CONCRETE_HIGH - HARD_CONCRETE_LOW) + HARD_CONCRETE_LOW
        return ops.clip(stretched, 0.0, 1.0)

    def _likely(self, log_alpha):
        """Probabilities that gates are open."""
        return ops.sigmoid(log_alpha - HARD_CONCRETE_SHIFT)


class UnitHardConcreteGates(HardConcreteGates):
    """Stochastic gates of whole heads and neurons, and of the sublayers that they make up.

    In training they are drawn, and multiply the rows of the matrix that a sublayer ends with, which has `unit_rows` of
    them for each; of other matrices nothing is trained. Otherwise an open one is σ(0.8 log α / temperature), as
    published, and which are open stands in `open`, of the columns that lead to the unit, too. `scores` holds a log α
    for each row, whose mean over a unit's is the unit's, and last that of the sublayer. The penalty is the sum of
    `penalty_weight` over rows times the probability that unit and sublayer are open, and its last element.

    Paper: Xia et al. 2022, Structured Pruning Learns Compact and Accurate Models (https://arxiv.org/abs/2204.00408).
    """

    variables = ("scores", "penalty_weight", "open")

    def build(self, layer: GatedLayer, shape: tuple[int, int]) -> None:
        ends_sublayer = layer.role in UNIT_ROWS
        layer.scores = self._add_scores(layer, (shape[0] + 1,), UNIT_INIT, trainable=ends_sublayer)
        layer.penalty_weight = self._add_untrained(layer, "penalty_weight", (shape[0] + 1,))
        layer.open = self._add_untrained(layer, "open", (shape[0], 1) if ends_sublayer else (1, shape[1]), "ones")
        layer.seed_generator = keras.random.SeedGenerator()

    def gates(self, layer: GatedLayer, training: bool | None) -> Tensor:
        gates = ops.cast(layer.mask_variable, "float32")
        if not training:
            gates = ops.multiply(gates, layer.open)
        if layer.role not in UNIT_ROWS:
            return gates
        units, whole = (self._drawn(layer, each) if training else self._expected(each)
                        for each in self.log_alphas(layer))  # fmt: skip
        return ops.multiply(gates, ops.repeat(units, layer.unit_rows)[:, None] * whole)

    def penalty(self, layer: GatedLayer) -> Tensor | None:
        if layer.role not in UNIT_ROWS:
            return None
        units, whole = self.log_alphas(layer)
        slopes = ops.sum(ops.reshape(layer.penalty_weight[:-1], (-1, layer.unit_rows)), axis=1)
        likely = ops.multiply(self._likely(units), self._likely(whole))
        return ops.add(ops.sum(ops.multiply(slopes, likely)), layer.penalty_weight[-1])

    def log_alphas(self, layer: GatedLayer) -> tuple[Tensor, Tensor]:
        """log α of the units [units] and of their sublayer [1]."""
        scores = ops.convert_to_tensor(layer.scores)
        return ops.mean(ops.reshape(scores[:-1], (-1, layer.unit_rows)), axis=1), scores[-1:]

    def _expected(self, log_alpha):
        return ops.sigmoid(log_alpha * (UNIT_SHARPNESS / HARD_CONCRETE_TEMPERATURE))


def straight_through(gates: Tensor, scores: Tensor) -> Tensor:
    """`gates` in value, with the gradient with respect to `scores` being that of the gates."""
    # The bracket is exactly zero, so the sum is exactly the gates; other spellings round.
    scores = ops.convert_to_tensor(scores)
    return ops.add(gates, scores - ops.stop_gradient(scores))


GATE_RULES: dict[str, type[GateRule]] = {
    "fixed": FixedGates,
    "straight_through": StraightThroughGates,
    "weighted_straight_through": WeightedStraightThroughGates,
    "soft_threshold": SoftThresholdGates,
    "hard_concrete": HardConcreteGates,
    "unit_hard_concrete": UnitHardConcreteGates,
}
"""Name → class."""
