"""Pruning any Keras model: gates on its dense layers, and a record without a word of BERT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from gated_bert.config import GatedBertConfig
from gated_bert.config.methods import METHODS
from gated_bert.config.option import declared_fields
from gated_bert.config.parts import part_of
from gated_bert.config.pruning_options import PruningOptions
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.gate import gated_layers, put_gates
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.criteria import Criterion, Loss, criterion_of
from gated_bert.pruning.criteria.base import class_of
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.pruning.patterns import Pattern, Several
from gated_bert.pruning.pruner import Pruner
from gated_bert.pruning.schedules import Schedule, build_schedule
from gated_bert.support.checks import choose
from gated_bert.support.errors import UserError

OPTIONS = tuple(name for name, declared in declared_fields(GatedBertConfig).items() if declared.option.any_model)
"""Fields of a run's record that say how to prune."""
_OF_ANY_CRITERION = tuple(name for name in OPTIONS if name in {**declared_fields(PruningOptions), "seed": None})
"""Those that are not of one criterion."""


def gate(
    model: keras.Model,
    method: str | Criterion = "magnitude",
    exclude: str | Sequence[str] = (),
    include: str | Sequence[str] = (),
    roles: Mapping[str, str | Sequence[str]] | None = None,
    **options: Any,
) -> keras.Model:
    """Puts gates on every `Dense` and `EinsumDense` layer of a built model, so that `PruningCallback` can prune it.

    Predictions stay the same, bit for bit (but for `l0`, whose gates begin at 0.98). Works in place, at any depth
    (attention layers, models in models), and leaves the model to be compiled, again if it was before. All layers are
    taken, an output layer too unless `exclude` names it: which layer is the output cannot be seen in a subclassed
    model, and a backbone has none. Layers that cannot have gates are left as they are, with a warning that says why;
    so are those that stand in several places, as ALBERT's blocks, and silently keras-hub's poolers and projections of
    embeddings: `include` takes them too.

    Which matrices are an attention's and which are keras-hub's feed-forward networks is seen, so that heads, their
    dimensions, neurons and QKV rows can go; of other networks `roles` says it.

    Args:
        model: a built Keras model.
        method: what will prune it, by name or a criterion; some keep scores beside the gates.
        exclude: layers that get no gates, by name or path (`head`, `block_0/attention/query`); `*` stands for anything.
        include: layers that get gates all the same, by name or path.
        roles: names or paths of layers by what they do, the first in the first block:
            `{"ffn_intermediate": "up_*", "ffn_output": "down_*"}`, or `query`, `key`, `value` and `attention_output`.
        **options: those of the callback that change what a layer keeps, `taylor_variant` and `spt_reward`.

    Returns:
        The same model.

    Raises:
        ConfigError: an unknown method, option or role.
        UserError: a model that is not built, has gates already or has no dense layer; a name without a match, or roles
            that do not go together.

    Example:

    ```python
    model = gate(keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)]))
    ```
    """
    if isinstance(method, Criterion):
        _check_names(options, ())
        rule = method.gate_rule
    else:
        _check_options(method, options, ("taylor_variant", "spt_reward"))
        rule = class_of(part_of(GatedBertConfig(pruning_method=method, **options))).gate_rule
    put_gates(model, rule, exclude, include, roles)
    return model


def pruning_record(method: str, pruning_end_epoch: int, **options: Any) -> GatedBertConfig:
    """The record of pruning a model of any kind: start at epoch 1 and 90 % of the weights unless `options` differ.

    Raises:
        ConfigError: an unknown method or option, or a refused value.
    """
    _check_options(method, options, OPTIONS)
    usual = {"pruning_start_epoch": 1, "end_sparsity": 0.9}
    return GatedBertConfig(
        pruning_method=method, epochs=pruning_end_epoch, pruning_end_epoch=pruning_end_epoch, **{**usual, **options}
    )


def _check_options(method: str, options: dict, allowed: tuple[str, ...]):
    choose("method", method, tuple(name for name, point in METHODS.items() if point.criterion))
    _check_names(options, allowed)


def _check_names(options: dict, allowed: tuple[str, ...]):
    for name in options:
        choose("option", name, allowed)


def pruner_of(
    model: keras.Model, method: str | Criterion, pruning_end_epoch: int, loss: Loss | None, options: dict
) -> tuple[Pruner, str]:
    """The pruner, with its schedule, of a model of any kind, and what messages call its method.

    Args:
        model: a model that `gate` put gates on.
        method: a method's name or a criterion.
        pruning_end_epoch: epoch at whose beginning the end sparsity is due.
        loss: what the criterion probes; None: the compiled loss.
        options: those of `pruning_record`; `pattern` and `schedule` may be objects.

    Raises:
        ConfigError: an unknown method or option, or a refused value.
        UserError: a model without gates or with those of another method.
    """
    parts = {"pattern": Pattern, "schedule": Schedule}
    objects = {name: options[name] for name, kind in parts.items() if isinstance(options.get(name), kind)}
    rest = {name: value for name, value in options.items() if name not in objects}
    if isinstance(method, Criterion):
        _check_names(rest, _OF_ANY_CRITERION)
        if method.Options.PATTERNS and "pattern" not in options:
            rest["pattern"] = method.Options.PATTERNS[0]
        record, criterion, name = pruning_record("magnitude", pruning_end_epoch, **rest), method, method.name
    else:
        record, name = pruning_record(method, pruning_end_epoch, **rest), method
        criterion = criterion_of(record)
    pattern = objects["pattern"] if "pattern" in objects else get_pattern(record)
    pruner = Pruner(
        layers_to_prune(model, criterion.gate_rule, name, pattern), criterion, pattern, record.scope,
        schedule=objects["schedule"] if "schedule" in objects else build_schedule(record), seed=record.seed,
        min_kept=record.min_kept, pooling=record.pooling, normalize_scores=record.normalize_scores, loss=loss,
    )  # fmt: skip
    return pruner, name


def layers_to_prune(model: keras.Model, needed: str, method: str, pattern: Pattern) -> list[GatedLayer]:
    """The layers of `model` on which `gate` put gates of the rule that a method needs.

    Raises:
        UserError: no gates, or those of another rule, or none of the layers that the pattern is made of.
    """
    layers = gated_layers(model)
    if not layers:
        raise UserError(f"{model.name} has no gates: gate(model, {method!r}) puts them on")
    if layers[0].gate_rule != needed:
        raise UserError(
            f"{model.name} has gates of the rule {layers[0].gate_rule}, {method} needs {needed}: "
            f"gate(model, {method!r}, …) with the callback's method and options"
        )
    _check_roles(pattern, layers)
    return layers


def _check_roles(pattern: Pattern, layers: Sequence[GatedLayer]):
    known = [layer for layer in layers if layer.layer_index is not None]
    places = {(layer.layer_index, layer.role) for layer in known}
    for part in pattern.parts if isinstance(pattern, Several) else (pattern,):
        roles = [role for role in ENCODER_ROLES if role in (part.roles() or ())]
        own = [layer for layer in known if layer.role in roles]
        what = f"pattern: {getattr(part, 'what', 'dimensions of heads')} are refused"
        if roles and not own:
            others = ", ".join(layer.label for layer in layers if layer not in known) or "the layers that are left"
            raise UserError(f"{what}: {others} are not known as {', '.join(roles)}; allowed: a pattern of single "
                            "matrices, or gate(model, roles={role: layers})")  # fmt: skip
        for layer in own:
            missing = [role for role in roles if (layer.layer_index, role) not in places]
            if missing:
                raise UserError(f"{what}: beside {layer.label} there are no gates on {', '.join(missing)}; "
                                "allowed: all of these of a block, or none")  # fmt: skip


class Batches(keras.utils.PyDataset):
    """Arrays cut into whole batches, in their own order.

    Args:
        inputs: array, or any structure of arrays, of equal length.
        labels: array, or any structure of arrays, of the same length; None where nobody looks at them.
        batch_size: rows of a batch; a smaller rest is left out, unless it is all there is.
    """

    def __init__(self, inputs: Any, labels: Any, batch_size: int):
        super().__init__()
        self.data, self.batch_size = (inputs, labels), batch_size
        self.rows = len(keras.tree.flatten(inputs)[0])

    def __len__(self):
        return min(self.rows, max(1, self.rows // self.batch_size))

    def __getitem__(self, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return keras.tree.map_structure(lambda array: None if array is None else array[rows], self.data)


def as_batches(data: Any, batch_size: int, method: str, needs_labels: bool) -> Any:
    """`data`, a pair of arrays or a dataset indexable by batch, as the latter.

    Raises:
        UserError: neither, nothing in it, or no labels where they are needed.
    """
    if isinstance(data, tuple) and len(data) == 2:
        if needs_labels and data[1] is None:
            raise UserError(f"{method}: data without labels were given, but it looks at them: data=(x, y)")
        data = Batches(*data, batch_size)
    # A bare array would be indexed by rows.
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "shape"):
        if not len(data):
            raise UserError(f"{method}: the data are empty, but it looks at batches of training data")
        return data
    given = "no data" if data is None else f"data of class {type(data).__name__}"
    raise UserError(
        f"{method}: {given} was given, but it looks at batches of training data: data=(x, y), arrays, or a PyDataset"
    )

