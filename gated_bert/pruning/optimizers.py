"""Optimisers that treat the gates' scores apart: own learning rate or own rule, and no decay."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.pruning.learning_rates import learning_rate
from gated_bert.support.backend import fused_adam, has_fused_adam, whole_gradients
from gated_bert.support.errors import UserError

SCORES = "scores"
"""Name of the variable in which gated layers keep trainable scores."""
_TRAINED = ("gradient", "apart")
"""Rules by which scores take the optimiser's own steps."""


class _ScoreAware:
    """Mixin over a Keras optimiser.

    Keras optimisers have no parameter groups, so variables called `scores` are found by index at build time: inside
    `update_step` TensorFlow hands over a raw variable without a path.

    Args:
        score_rule: `gradient` (the optimiser's own step), `apart` (the same, as if by an optimiser of their own: at a
            rate that stays as it is, and not clipped), `reward` (moving average of −gradient, whose first value is
            taken whole), `squared` (sum of squared gradients) or `absolute` (that of their sizes).
        score_multiplier: learning rate of the scores as a multiple of the weights'; for `gradient`.
        score_rate: learning rate of the scores; for `apart`.
        score_alpha: for `reward`, weight of a new value in the moving average; for `absolute`, what is left of the sum
            when a new value comes.
    """

    def __init__(
        self, *args, score_rule="gradient", score_multiplier=1.0, score_alpha=0.125, score_rate=None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.score_rule, self.score_multiplier, self.score_alpha = score_rule, score_multiplier, score_alpha
        self.score_rate = score_rate
        self._score_places = frozenset()

    def build(self, variables):
        if not self.built:
            self._score_places = frozenset(i for i, variable in enumerate(variables) if variable.name == SCORES)
        super().build(variables)

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        if self.score_rule not in _TRAINED and getattr(reference_variable, "name", None) == SCORES:
            return None
        return super().add_variable_from_reference(reference_variable, name=name, initializer=initializer)

    def _backend_apply_gradients(self, grads, trainable_variables):
        self._applied = [self._get_variable_index(variable) in self._score_places for variable in trainable_variables]
        super()._backend_apply_gradients(grads, trainable_variables)

    def _clip_gradients(self, grads):
        """Clips scores that are trained with the weights together with them (Sanh et al. 2020); others stay out."""
        # Keras would clip parts, which do not add up to the clipped whole.
        grads = whole_gradients(grads)
        if self.score_rule == "gradient":
            return super()._clip_gradients(grads)
        weights = iter(super()._clip_gradients([g for g, score in zip(grads, self._applied, strict=True) if not score]))
        return [g if score else next(weights) for g, score in zip(grads, self._applied, strict=True)]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars

    def update_step(self, gradient, variable, learning_rate):
        if self._get_variable_index(variable) not in self._score_places:
            super().update_step(gradient, variable, learning_rate)
        elif self.score_rule == "gradient":
            super().update_step(gradient, variable, learning_rate * self.score_multiplier)
        elif self.score_rule == "apart":
            super().update_step(gradient, variable, ops.full_like(learning_rate, self.score_rate))
        elif self.score_rule == "squared":
            self.assign_add(variable, ops.square(gradient))
        elif self.score_rule == "absolute":
            self.assign(variable, self.score_alpha * variable + ops.abs(gradient))
        else:
            alpha = ops.where(ops.equal(self.iterations, 0), 1.0, self.score_alpha)
            self.assign_add(variable, alpha * (-gradient - variable))

    def _use_weight_decay(self, variable):
        return self._get_variable_index(variable) not in self._score_places and super()._use_weight_decay(variable)

    def get_config(self):
        names = ("score_rule", "score_multiplier", "score_alpha", "score_rate")
        own = {name: getattr(self, name) for name in names}
        return super().get_config() | own


class _OnePass:
    """Mixin over Adam whose step TensorFlow takes in one pass over a variable; Keras' own needs twelve."""

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        if self.amsgrad or not has_fused_adam():
            super().update_step(gradient, variable, learning_rate)
        else:
            moments = self._momentums[place], self._velocities[place]
            rates = learning_rate, self.beta_1, self.beta_2, self.epsilon
            fused_adam(variable, gradient, *moments, self.iterations + 1, *rates)


@keras.saving.register_keras_serializable("gated_bert")
class ScoreAdamW(_ScoreAware, _OnePass, keras.optimizers.AdamW):
    """AdamW with separate treatment of scores (Loshchilov & Hutter 2019)."""


@keras.saving.register_keras_serializable("gated_bert")
class ScoreAdam(_ScoreAware, _OnePass, keras.optimizers.Adam):
    """Adam with separate treatment of scores (Kingma & Ba 2015)."""


@keras.saving.register_keras_serializable("gated_bert")
class ScoreSGD(_ScoreAware, keras.optimizers.SGD):
    """SGD with momentum and separate treatment of scores."""


_SCORE_AWARE: dict[type, Any] = {
    keras.optimizers.AdamW: ScoreAdamW,
    keras.optimizers.Adam: ScoreAdam,
    keras.optimizers.SGD: ScoreSGD,
}


def score_aware(
    optimizer: keras.optimizers.Optimizer,
    score_rule: str,
    score_multiplier: float,
    score_alpha: float,
    score_rate: float | None = None,
) -> keras.optimizers.Optimizer:
    """A copy of AdamW, Adam or SGD that treats scores apart; the arguments are those of `_ScoreAware`.

    Raises:
        UserError: another optimiser, or SGD where scores are trained `apart`: their gradients are too small for it.
    """
    known = [kind for kind in _SCORE_AWARE if score_rule != "apart" or kind is not keras.optimizers.SGD]
    if type(optimizer) not in known:
        allowed = ", ".join(kind.__name__ for kind in known)
        raise UserError(f"optimizer: {optimizer!r} is refused; allowed: an optimiser of the class {allowed}")
    rules = {"score_rule": score_rule, "score_multiplier": score_multiplier, "score_alpha": score_alpha,
             "score_rate": score_rate}  # fmt: skip
    return _SCORE_AWARE[type(optimizer)].from_config(optimizer.get_config() | rules)


def build_optimizer(
    config: GatedBertConfig, model: keras.Model, total_steps: int, score_rule: str, score_alpha: float | None = None
) -> keras.optimizers.Optimizer:
    """The optimiser of a run, built on the model's trainable variables.

    Biases, layer norms, gates and scores are not decayed.

    Args:
        config: the run's record.
        model: a built model.
        total_steps: steps of the whole run, for the learning-rate schedule.
        score_rule: what moves the scores; see `_ScoreAware`.
        score_alpha: likewise; None: that of SPT's rewards.
    """
    options = {
        "learning_rate": learning_rate(config, total_steps),
        "weight_decay": config.weight_decay,
        "global_clipnorm": config.clip_norm,
        "score_rule": score_rule,
        "score_multiplier": config.movement_learning_rate / config.learning_rate,
        "score_rate": config.movement_learning_rate,
        "score_alpha": config.spt_reward_alpha if score_alpha is None else score_alpha,
    }
    if config.optimizer == "sgd":
        optimizer: keras.optimizers.Optimizer = ScoreSGD(momentum=config.momentum, **options)
    else:
        kind = ScoreAdamW if config.optimizer == "adamw" else ScoreAdam
        optimizer = kind(epsilon=1e-8, **options)
    undecayed = ("bias", "gamma", "beta", "gates", SCORES)
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if v.name in undecayed])
    optimizer.build(model.trainable_variables)
    if config.precision == "mixed_float16":
        # At the default scale of 2¹⁵ the first steps overflow and are skipped.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0)
        optimizer.build(model.trainable_variables)
    return optimizer
