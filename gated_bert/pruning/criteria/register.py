"""Criteria of a user's own, by name."""

from __future__ import annotations

import dataclasses
import inspect

from gated_bert.config import GatedBertConfig
from gated_bert.config.criterion_options import CriterionOptions
from gated_bert.config.methods import METHODS, Method
from gated_bert.config.option import declared_fields
from gated_bert.config.parts import CRITERIA, Part, claim, own_options
from gated_bert.models.gate_rules import GATE_RULES
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.support.errors import UserError


def register_criterion(name: str, criterion: type[Criterion], method: Method | None = None) -> None:
    """Makes a criterion of a user's own known by name, as a `--criterion` and, for the point it stands for, a `-p`.

    Args:
        name: letters, digits and _.
        criterion: a subclass of `Criterion`; its `Options`, a frozen dataclass on `CriterionOptions` whose fields are
            made by `option`, are set by `--criterion-options`.
        method: pattern, scope and schedule where nobody says them; None: `Method(name)`.

    Raises:
        UserError: a name that is taken or no name, another class, options that a run has already, or a gate rule that
            nobody registered.
    """
    if not (isinstance(criterion, type) and issubclass(criterion, Criterion)):
        raise UserError(f"register_criterion: {criterion!r} is refused; allowed: a subclass of Criterion")
    options = criterion.Options
    if not (isinstance(options, type) and issubclass(options, CriterionOptions)):
        raise UserError(f"register_criterion: {name}: Options {options!r} is refused; allowed: a dataclass on "
                        "CriterionOptions")  # fmt: skip
    for base in criterion.__mro__[1:]:
        needed = vars(base).get("Options")
        if needed is not None and not issubclass(options, needed):
            raise UserError(f"register_criterion: {name}: Options {options.__name__} is refused; allowed: a dataclass "
                            f"on {base.__name__}.Options, which {base.__name__} reads")  # fmt: skip
    _check_options(name, options)
    if criterion.gate_rule not in GATE_RULES:
        raise UserError(f"register_criterion: {name}: the gate rule {criterion.gate_rule!r} is refused; allowed: "
                        f"{', '.join(GATE_RULES)}, or one that register_gate_rule made known before")  # fmt: skip
    claim("criterion", name, {**METHODS, **CRITERIA})
    CRITERIA[name] = Part(options, criterion)
    METHODS[name] = method or Method(name)


def _check_options(name: str, options: type[CriterionOptions]):
    if not inspect.get_annotations(options).keys() <= options.__dataclass_fields__.keys():
        raise UserError(f"register_criterion: {name}: its Options are no dataclass; write @dataclass(frozen=True) over "
                        "the class")  # fmt: skip
    for field in dataclasses.fields(options):
        if field.name not in declared_fields(options):
            raise UserError(f"register_criterion: {name}: the option {field.name!r} is declared without "
                            "option(default, help)")  # fmt: skip
    for own in own_options(options):
        if own in declared_fields(GatedBertConfig):
            raise UserError(f"register_criterion: {name}: the option {own!r} is taken by a field of every run; "
                            "choose another name")  # fmt: skip
