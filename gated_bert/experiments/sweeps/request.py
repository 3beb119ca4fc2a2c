"""What a person asks of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from gated_bert.config import GatedBertConfig
from gated_bert.config.distill_options import DISTILL_FIELDS, SELF, SELF_ELSEWHERE
from gated_bert.config.flag_table import LABELS, hint, read_as
from gated_bert.config.launcher_options import LauncherOptions
from gated_bert.config.matrix_checks import check_matrices
from gated_bert.config.methods import METHODS
from gated_bert.config.option import declared_fields
from gated_bert.config.parts import CRITERIA, own_options
from gated_bert.config.presets import TASK_MAX_LEN
from gated_bert.config.recipes import OF_PRETRAINED, RECIPES, decided_elsewhere
from gated_bert.support.checks import ConfigError, FlagError


@dataclass(frozen=True)
class Settings:
    """A checked request for one or more runs.

    Attributes:
        values: fields of `GatedBertConfig` that are the same in every run.
        typed: names of the flags (and environment variables' fields) that a person set.
        methods: pruning methods, in order, without repeats.
        tasks: task names, in order, without repeats.
        seeds: seeds, in order, without repeats.
        output: folder of the results.
        launcher: how the jobs are run.
        notes: sentences about values that were fitted to each other.
        labels: how messages call a field: by its flag, or by the file and the key that set it.
    """

    values: dict[str, Any]
    typed: frozenset[str]
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    output: Path
    launcher: LauncherOptions = LauncherOptions()
    notes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS)

    def config(self, method: str, task: str, seed: int) -> GatedBertConfig:
        """The record of one run.

        Raises:
            FlagError: a value that the record refuses, named by its flag.
        """
        elsewhere = decided_elsewhere(self.values, self.typed)
        usual = {name: value for name, value in self.values.items() if name not in elsewhere}
        values = {**usual, "pruning_method": method, "task": task, "seed": seed}
        if task in TASK_MAX_LEN and "max_len" not in self.typed:
            values.pop("max_len", None)
        if self.values.get("teacher") == SELF and METHODS[method].criterion is None and values.get("criterion") is None:
            values = self._of_teacher(values)
        own = values.get("criterion_options") or {}
        if own:
            values["criterion_options"] = self._options_of(values.get("criterion") or METHODS[method].criterion, own)
        ends = {name: values.pop(name) for name in ("start_sparsity", "end_sparsity")
                if name in values and name not in self.typed}  # fmt: skip
        try:
            config = GatedBertConfig(**values)
            if any(getattr(config, name) != value for name, value in ends.items()):
                # The method's own schedule holds until a person types -s or -f, whatever a script's defaults are.
                config = config.replace(**ends, schedule=config.schedule)
            check_matrices(config)
            # Also where it starts from a dense model of its own.
            return config.replace(**{name: getattr(config, name) for name in OF_PRETRAINED})
        except ConfigError as error:
            name = "seeds" if error.field == "seed" and "seeds" in self.typed else error.field
            raise FlagError(error.describe(self.labels.get(name, name)) + hint(error.field, error.value)) from None

    def refuse_self(self) -> NoReturn:
        """Says that there is no sweep that could train a teacher, and whose word `self` is.

        Raises:
            FlagError: always.
        """
        whose = "" if "teacher" in self.typed else f"; or none: self is of the recipe {self.values.get('recipe')}"
        raise FlagError.refused(self.labels["teacher"], SELF, SELF_ELSEWHERE + whose)

    def _of_teacher(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What of a run's fields makes the dense model that is to teach the others."""
        values = {name: value for name, value in values.items() if name not in DISTILL_FIELDS} | {"teacher": None}
        recipe = RECIPES.get(self.values.get("recipe") or "")
        if recipe is None or not recipe.dense or values.get("pretrained") is None:
            return values
        of_recipe = ({*recipe.values, *recipe.epochs} - self.typed - {"pruning_method"}) | {"recipe"}
        own = {name: value for name, value in recipe.dense.items() if name not in self.typed}
        return {name: value for name, value in values.items() if name not in of_recipe} | own

    def _options_of(self, criterion: str | None, given: Mapping[str, object]) -> dict[str, object]:
        """What of the options of criteria of a user's own one of several methods takes; what none takes is refused."""
        names = {METHODS[method].criterion for method in self.methods} - {criterion, None}
        others = {option for name in names if name for option in own_options(CRITERIA[name].options)}
        mine = own_options(CRITERIA[criterion].options) if criterion else ()
        kinds = {name: declared_fields(CRITERIA[criterion].options)[name].kind for name in mine} if criterion else {}
        return {name: read_as(kinds.get(name, str), value) for name, value in given.items()
                if name in mine or name not in others}  # fmt: skip
