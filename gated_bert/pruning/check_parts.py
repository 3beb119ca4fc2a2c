"""Whether the parts of a pruner go together, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence

from gated_bert.config import ConfigError
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.closed import is_of_weights
from gated_bert.pruning.criteria import Criterion
from gated_bert.pruning.groups import Group
from gated_bert.pruning.patterns import Pattern
from gated_bert.support.errors import UserError


def check_classes(**parts: tuple):
    """Refuses what is not an object of its class.

    Args:
        **parts: name → the value, its class, and None where that is allowed as well.

    Raises:
        UserError: the first of them.
    """
    for name, (value, kind, *others) in parts.items():
        if not isinstance(value, kind) and value not in others:
            is_class = isinstance(value, type) and issubclass(value, kind)
            hint = f", as {value.__name__}() makes one" if is_class else ""
            raise UserError(f"{name}: {value!r} is refused; allowed: an object of the class {kind.__name__}{hint}")


def check_parts(criterion: Criterion, pattern: Pattern, groups: Sequence[Group], scope: str, pooling: str | None):
    """Refuses parts that do not go together, as `record_checks` does by names.

    Raises:
        ConfigError: the first of them.
    """
    about, name = type(criterion).Options, criterion.name
    of_weights = all(is_of_weights(group) for group in groups)
    if about.ELEMENT_ONLY and not of_weights:
        raise ConfigError("pattern", str(pattern), f"single weights: {name} closes them by a threshold")
    if about.SIGNED and not about.ELEMENT_ONLY and pooling not in (None, "mean"):
        raise ConfigError("pooling", pooling, f"mean: a norm would keep what {name} wants removed")
    if scope == "output" and not (of_weights and len(pattern.steps(0.5)) == 1):
        raise ConfigError("scope", "output", "layer, global or role; only single weights lie in single columns")


def check_gate_rule(criterion: Criterion, layers: Sequence[GatedLayer], method: str):
    """Refuses layers whose gates cannot hold what a criterion trains.

    Raises:
        UserError: gates of another rule.
    """
    needed = criterion.gate_rule
    found = next((layer.gate_rule for layer in layers if layer.gate_rule != needed), None)
    if needed != "fixed" and found is not None:
        raise UserError(f"{method}: the layers have gates of the rule {found}, it needs {needed}; gate(model, "
                        "criterion) puts on those that a criterion needs")  # fmt: skip
