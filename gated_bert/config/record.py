"""The record of one run: frozen, validated, and written to JSON as it is."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gated_bert.config.criterion_options import (
    ActivationOptions,
    CofiOptions,
    CriterionOptions,
    L0Options,
    MaskTuningOptions,
    MovementOptions,
    ObertOptions,
    PlatonOptions,
    SaliencyOptions,
    SnipMomentumOptions,
    SoftMovementOptions,
    SparseGptOptions,
    SptOptions,
    TaylorOptions,
)
from gated_bert.config.distill_options import DistillOptions, distilled_label, filled_distillation
from gated_bert.config.input_options import InputOptions, usual_lengths
from gated_bert.config.later_fields import with_later_fields
from gated_bert.config.methods import METHODS, method_of_criterion
from gated_bert.config.model_options import ModelOptions
from gated_bert.config.option import (
    check_declared,
    declared_fields,
    plainly_spelt,
    takes_other_spellings,
    value_types,
)
from gated_bert.config.parts import CRITERIA, options_of
from gated_bert.config.plugins import load_installed
from gated_bert.config.presets import (
    END_SPARSITY,
    MOVEMENT_FREQUENCY,
    PRESETS,
    RECOMPUTATIONS_AT_ONCE,
    SCORE_RATES,
    SCORE_STEPS,
    START_SPARSITY,
    schedule_size,
    spt_epsilon,
    usual_rate,
)
from gated_bert.config.pruning_options import PruningOptions, TicketOptions
from gated_bert.config.pruning_types import fields_of_type
from gated_bert.config.pruning_window import STEPS_INSTEAD, epochs_of_window
from gated_bert.config.recipes import recipe_values
from gated_bert.config.record_checks import check_together
from gated_bert.config.space import PATTERNS, SCHEDULES
from gated_bert.config.training_options import TrainingOptions
from gated_bert.support.checks import MOST_SHOWN, ConfigError, choose
from gated_bert.support.records import parse_record, read_record, type_fault

NOT_COMPUTED = frozenset({"checkpoint_steps", "checkpoint_dir", "plugins", "track"})
"""Fields in which runs that go on, or are compared, may differ: they decide nothing of what is computed."""


class _Assigned(dict):
    """Options by name, which a record that is hashed may hold: nobody writes into it."""

    def __hash__(self):
        return hash(frozenset(self.items()))


@takes_other_spellings
@dataclass(frozen=True)
class GatedBertConfig(
    TicketOptions, MaskTuningOptions, ObertOptions, SparseGptOptions, SnipMomentumOptions, PlatonOptions,
    SaliencyOptions, CofiOptions, L0Options, SoftMovementOptions, MovementOptions, SptOptions, ActivationOptions,
    TaylorOptions, PruningOptions, DistillOptions, TrainingOptions, InputOptions, ModelOptions,
):  # fmt: skip
    """Everything that decides what a run computes: one flat record made of sections, each declared in its own file.

    Whatever needs a section alone takes it, `InputOptions(max_len=64)`, or the whole record.

    The usual method is magnitude, or `spt` where one of its fields is set. Fields left at `None` are filled in when
    the record is made (size-dependent defaults, the method's own schedule, the scope of the criterion), so a written
    record always holds the values used.

    Raises:
        ConfigError: a value that is not allowed, or two that do not fit together.

    Example:

    ```python
    config = GatedBertConfig(model_size="tiny", pruning_method="movement", end_sparsity=0.9, epochs=8)
    assert (config.criterion, config.pattern, config.scope) == ("movement", "element", "layer")
    assert GatedBertConfig.from_json(config.to_json()) == config
    ```
    """

    PREFIX: ClassVar[str] = ""

    def __post_init__(self):
        self._fill_in()
        check_declared(self)
        check_together(self)

    def _set(self, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _fill_in(self):
        named = ((self.pruning_method, {**METHODS, "none": None}), (self.criterion, CRITERIA), (self.pattern, PATTERNS),
                 (self.schedule, SCHEDULES))  # fmt: skip
        if any(name is not None and name not in known for name, known in named):
            # It may be that of an installed package.
            load_installed()
        choose("model_size", self.model_size, tuple(PRESETS))
        given = vars(self)["_given"]
        self._set(**recipe_values(given, _USUAL))
        if "pruning_method" not in given and any(getattr(self, name) != _USUAL[name] for name in _OF_SPT):
            # Until magnitude was, it was the usual method: what says only how to explore still means it.
            self._set(pruning_method="spt")
        if self.learning_rate is None:
            self._set(learning_rate=usual_rate(self.pretrained, self.model_size))
        if self.pruning_method == "none" or not self.enable_pruning:
            self._set(pruning_method="baseline")
        choose("pruning_method", self.pruning_method, tuple(METHODS))
        if self.pruning_method == "baseline":
            self._set(enable_pruning=False, criterion=None)
        elif self.criterion is None:
            self._set(criterion=METHODS[self.pruning_method].criterion)
        else:
            choose("criterion", self.criterion, CRITERIA)
        named = METHODS[self.pruning_method]
        usual = named if named.criterion == self.criterion else method_of_criterion(self.criterion)
        if self.pretrained is None:
            self._set(**dict(zip(("num_layers", "d_model", "num_heads", "dff"), self.sizes(), strict=True)))
        if isinstance(self.sparsity_steps, list | tuple):
            self._set(sparsity_steps=tuple(float(step) for step in self.sparsity_steps))
        several = ("prunable_roles", "plugins", "track")
        self._set(**{name: tuple(getattr(self, name)) for name in several})
        self._set(track=tuple(name for place, name in enumerate(self.track) if name not in self.track[:place]))
        if self.criterion_options is not None:
            self._set(criterion_options=_Assigned(self.criterion_options))
        if self.criterion == "spt" and self.spt_variant == "published":
            self._restore_published_spt()
        self._set(**fields_of_type(self))
        if self.spt_unit is None:
            self._set(spt_unit=self.pattern or "element")
        if self.pattern is None:
            self._set(pattern=self.spt_unit if self.criterion == "spt" else usual.pattern)
        if self.scope is None:
            # Columns alone are ranked by single weights.
            self._set(scope="layer" if usual.scope == "output" and self.pattern != "element" else usual.scope)
        if self.schedule is None:
            self._set(schedule=self._default_schedule(usual.schedule))
        self._set(**usual_lengths(self), **filled_distillation(self))
        size = schedule_size(self.model_size)
        defaults = {
            "start_sparsity": START_SPARSITY,
            "end_sparsity": END_SPARSITY,
            "spt_epsilon": spt_epsilon(size),
            "movement_pruning_frequency_steps": SCORE_STEPS.get(self.criterion, MOVEMENT_FREQUENCY),
            "movement_learning_rate": SCORE_RATES.get(self.criterion, SCORE_RATES["movement"]),
            "obert_recomputations": RECOMPUTATIONS_AT_ONCE if self.schedule == "one_shot" else 1,
        }
        self._set(**{name: value for name, value in defaults.items() if getattr(self, name) is None})
        self._set(**epochs_of_window(self, vars(self)["_given"]))

    def _restore_published_spt(self):
        for name, published in (("spt_unit", "element"), ("spt_reward", "measured"), ("spt_credit", "mean")):
            if getattr(self, name) not in (published, getattr(type(self), name)):
                raise ConfigError(name, getattr(self, name), f"{published}, with spt_variant=published")
            self._set(**{name: published})

    def _default_schedule(self, usual: str) -> str:
        if isinstance(self.sparsity_steps, tuple):
            return "steps"
        if self.epochs == 0:
            return "one_shot"
        explicit_ends = self.start_sparsity is not None or self.end_sparsity is not None
        if self.criterion == "movement":
            return self.movement_schedule
        return "linear" if explicit_ends and usual == "auto" else usual

    @property
    def label(self) -> str:
        """The method's name with its variants; `criterion-pattern-scope-schedule` for a point without a name; and
        whether it has a teacher."""
        return self._method_label + distilled_label(self)

    @property
    def _method_label(self) -> str:
        options = options_of(self) if self.criterion else CriterionOptions()
        usual = {name: declared_fields(type(options))[name].default for name in options.LABELLED}
        variants = [str(getattr(options, name)) for name, value in usual.items() if getattr(options, name) != value]
        named = METHODS[self.pruning_method]
        name = self.pruning_method if self.criterion in (None, named.criterion) else self.criterion
        method = "-".join([name, *variants])
        point = (self.criterion, self.pattern, self.scope)
        if self.criterion is None or point == (named.criterion, named.pattern, named.scope):
            return method
        pattern = self.pattern + "-kn" * (self.tile_dims == "kn") + "-code" * (self.tilesparsity_variant == "code")
        return "-".join([method, pattern, self.scope, self.schedule])

    def replace(self, **changes: Any) -> GatedBertConfig:
        """The record that the same values with `changes` make.

        What this record was not given (a size, a schedule …) is filled in anew, so that
        `GatedBertConfig(**a).replace(**b)` is `GatedBertConfig(**{**a, **b})`. A written record says all fields; read
        again, those count as filled in that hold what would be filled in. (`dataclasses.replace` keeps all fields.)

        Raises:
            ConfigError: an unknown field, or values that are not allowed or do not fit together.
        """
        changes = plainly_spelt(type(self), changes)
        self._refuse_unknown(changes)
        return type(self)(**{**vars(self)["_given"], **changes})

    def _left_open(self) -> dict[str, Any]:
        """Values that make this record, without those that are filled in alike where they are left out."""
        needed = {name: value for name, value in dataclasses.asdict(self).items() if value != _USUAL[name]}
        # Beside fields of SPT it says something where it is the usual one, too.
        needed["pruning_method"] = self.pruning_method
        recipe = recipe_values(needed, _USUAL)
        needed |= {name: getattr(self, name) for name in recipe if name not in needed}
        # Of two fields that fill in each other, as pattern and unit, the one that other methods read is tried last;
        # what follows from a warm-up, first.
        for name in ("enable_pruning", *STEPS_INSTEAD, *reversed(_USUAL)):
            if name not in needed:
                continue
            fewer = {other: value for other, value in needed.items() if other != name}
            with contextlib.suppress(ConfigError):
                if type(self)(**fewer) == self:
                    needed = fewer
        return needed

    def to_json(self) -> str:
        """The record as JSON text, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_dict(cls, values: dict) -> GatedBertConfig:
        """A record from a dictionary.

        Raises:
            ConfigError: an unknown field, or a refused value.
        """
        values = with_later_fields(plainly_spelt(cls, values))
        cls._refuse_unknown(values)
        kinds = value_types(cls)
        for name, value in values.items():
            allowed = type_fault(value, kinds[name])
            if allowed is not None:
                raise ConfigError(name, value, allowed)
        record = cls(**values)
        filled_in = {name for name in _USUAL if _USUAL[name] is None and getattr(record, name) is not None}
        # Only a written record says all of these.
        if filled_in <= values.keys():
            record._set(_given=record._left_open())
        return record

    @classmethod
    def _refuse_unknown(cls, values: dict):
        known = {field.name for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                close = difflib.get_close_matches(name[:MOST_SHOWN], known, 1)
                raise ConfigError(
                    name[:MOST_SHOWN], value, f"the known fields{f' (did you mean {close[0]}?)' if close else ''}"
                )

    @classmethod
    def from_json(cls, text_or_path: str | os.PathLike) -> GatedBertConfig:
        """A record from JSON text or from the path of a JSON file."""
        if str(text_or_path).lstrip().startswith("{"):
            return cls.from_dict(parse_record(str(text_or_path), where="the record"))
        return cls.from_dict(read_record(Path(text_or_path)))


_USUAL = {field.name: field.default for field in dataclasses.fields(GatedBertConfig)}
_OF_SPT = tuple(name for name in _USUAL if name.startswith(SptOptions.PREFIX))
"""Fields that, set without a method, mean `spt`."""
