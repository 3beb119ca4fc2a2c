"""The record of one run: frozen, validated, and written to JSON as it is."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from gated_bert.checks import ConfigError, choose, whole
from gated_bert.config_checks import ENCODER_ROLES, PRUNING_TYPES, check
from gated_bert.methods import CRITERIA, METHODS, method_of_criterion
from gated_bert.presets import PRESETS, movement_frequency, schedule_size, spt_epsilon, usual_max_len

NOT_COMPUTED = frozenset({"checkpoint_steps", "checkpoint_dir"})
"""Fields in which runs that go on, or are compared, may differ: they decide nothing of what is computed."""


@dataclass(frozen=True)
class GatedBertConfig:
    """Everything that decides what a run computes.

    Fields left at `None` are filled in when the record is made (size-dependent defaults, the method's own
    schedule, the scope of the criterion), so a written record always holds the values used. `start_sparsity`
    and `end_sparsity` are fractions of the prunable weights; `sparsity_steps` are percentages, one per epoch
    from `pruning_start_epoch` (epochs count from 1).

    Raises:
        ConfigError: a value that is not allowed, or two that do not fit together.
    """

    # Model
    model_size: str = "base"
    num_layers: int | None = None
    d_model: int | None = None
    num_heads: int | None = None
    dff: int | None = None
    vocab_size: int | None = None
    dropout_rate: float = 0.0
    gate_init_value: float = 1.0
    gate_trainable: bool = False
    pretrained: str | None = None
    # Data
    task: str = "sst2"
    data: str = "hub"
    allow_partial: bool = False
    vocab: str | None = None
    max_len: int | None = None
    train_examples: int | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    doc_stride: int | None = None
    n_best_size: int = 20
    max_answer_length: int = 30
    # Training
    epochs: int = 25
    batch_size: int = 96
    learning_rate: float = 2e-5
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    warmup_ratio: float = 0.1
    clip_norm: float | None = 1.0
    seed: int = 42
    precision: str = "float32"
    jit_compile: bool = False
    devices: int | str = 1
    checkpoint_steps: int = 200
    checkpoint_dir: str | None = None
    resource_seconds: float = 0.0
    # Pruning
    enable_pruning: bool = True
    pruning_method: str = "spt"
    criterion: str | None = None
    pattern: str | None = None
    scope: str | None = None
    pruning_type: int | None = None
    granularity: int = 128
    block_size: tuple[int, int] = (32, 32)
    vector_size: int = 16
    vector_axis: str = "k"
    tile_dims: str | None = None
    g1percent: float = 5.0
    sparsity_per_dim: bool = False
    pooling: str | None = None
    normalize_scores: bool = False
    taylor_variant: str = "default"
    schedule: str | None = None
    start_sparsity: float | None = None
    end_sparsity: float | None = None
    pruning_start_epoch: int = 4
    pruning_end_epoch: int = 23
    sparsity_steps: tuple[float, ...] | str | None = None
    prunable_roles: tuple[str, ...] = ENCODER_ROLES
    min_kept: float = 0.005
    spt_epsilon: float | None = None
    spt_explore_per_layer: bool = False
    spt_reward_alpha: float = 0.125
    spt_unit: str | None = None
    spt_reward: str = "measured"
    spt_credit: str = "mean"
    spt_variant: str = "default"
    movement_pruning_frequency_steps: int | None = None
    movement_schedule: str = "linear"
    movement_learning_rate: float = 1e-2
    soft_movement_threshold: float = 0.1
    soft_movement_penalty: float = 25.0
    l0_penalty: float = 25.0
    score_batches: int = 8
    noise: str = "constant"
    noise_std: float = 1e-3
    smooth_passes: int = 10
    # Lottery tickets
    rewind_step: int | None = None
    ticket: str | None = None
    ticket_control: str | None = None

    def __post_init__(self):
        self._fill_in()
        check(self)

    def _set(self, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _fill_in(self):
        choose("model_size", self.model_size, tuple(PRESETS))
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
        preset = PRESETS[self.model_size]
        for name in ("num_layers", "d_model", "num_heads", "dff"):
            if getattr(self, name) is None and (self.pretrained is None):
                self._set(**{name: getattr(preset, name)})
        if isinstance(self.sparsity_steps, list | tuple):
            self._set(sparsity_steps=tuple(float(step) for step in self.sparsity_steps))
        self._set(prunable_roles=tuple(self.prunable_roles))
        if self.criterion == "spt" and self.spt_variant == "published":
            self._restore_published_spt()
        self._fill_in_pattern()
        if self.spt_unit is None:
            self._set(spt_unit=self.pattern or "element")
        if self.pattern is None:
            self._set(pattern=self.spt_unit if self.criterion == "spt" else usual.pattern)
        if self.scope is None:
            self._set(scope=usual.scope)
        if self.schedule is None:
            self._set(schedule=self._default_schedule(usual.schedule))
        if self.max_len is None:
            self._set(max_len=usual_max_len(self.task))
        whole("max_len", self.max_len, 8, 512)
        if self.task == "squad" and self.doc_stride is None:
            self._set(doc_stride=min(128, self.max_len // 3))
        size = schedule_size(self.model_size)
        defaults = {
            "start_sparsity": 0.0,
            "end_sparsity": 0.99,
            "spt_epsilon": spt_epsilon(size),
            "movement_pruning_frequency_steps": movement_frequency(size),
        }
        self._set(**{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def _fill_in_pattern(self):
        self._set(block_size=tuple(self.block_size))
        if self.pruning_type is not None:
            allowed = ", ".join(map(str, PRUNING_TYPES)) + " (6 was never published)"
            if self.pruning_type not in PRUNING_TYPES:
                raise ConfigError("pruning_type", self.pruning_type, allowed)
            pattern = PRUNING_TYPES[self.pruning_type]
            dims = {7: "k", 8: "kn"}.get(self.pruning_type)
            for name, value in (("pattern", pattern), ("tile_dims", dims)):
                if getattr(self, name) not in (None, value) and value is not None:
                    raise ConfigError(name, getattr(self, name), f"{value}, with pruning_type={self.pruning_type}")
                if value is not None:
                    self._set(**{name: value})
            if pattern == "tile" and self.scope is None:
                self._set(scope="global")
        if self.tile_dims is None:
            self._set(tile_dims="k")

    def _restore_published_spt(self):
        for name, published in (("spt_unit", "element"), ("spt_reward", "measured"), ("spt_credit", "mean")):
            if getattr(self, name) not in (published, getattr(type(self), name)):
                raise ConfigError(name, getattr(self, name), f"{published}, with spt_variant=published")
            self._set(**{name: published})

    def _default_schedule(self, usual: str) -> str:
        if isinstance(self.sparsity_steps, tuple):
            return "steps"
        explicit_ends = self.start_sparsity is not None or self.end_sparsity is not None
        if self.criterion == "movement":
            return self.movement_schedule
        return "linear" if explicit_ends and usual == "auto" else usual

    @property
    def label(self) -> str:
        """The method's name with its variants; `criterion-pattern-scope-schedule` for a point without a name."""
        variants = [
            value
            for value, usual in (
                (self.spt_reward, "measured"),
                (self.spt_credit, "mean"),
                (self.spt_variant, "default"),
            )
            if value != usual and self.criterion == "spt"
        ]
        if self.criterion == "taylor" and self.taylor_variant != "default":
            variants.append(self.taylor_variant)
        method = "-".join([self.pruning_method, *variants])
        named = METHODS[self.pruning_method]
        point = (self.criterion, self.pattern, self.scope)
        if self.criterion is None or point == (named.criterion, named.pattern, named.scope):
            return method
        first = method if self.criterion == named.criterion else self.criterion
        pattern = f"{self.pattern}-kn" if self.tile_dims == "kn" else self.pattern
        return "-".join([first, pattern, self.scope, self.schedule])

    def replace(self, **changes) -> GatedBertConfig:
        """A copy with `changes`; fields filled in by size or method keep the values they have."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """The record as JSON text, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_dict(cls, values: dict) -> GatedBertConfig:
        """A record from a dictionary.

        Raises:
            ConfigError: an unknown field, or a refused value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                raise ConfigError(
                    name, values[name], f"the known fields{f' (did you mean {close[0]}?)' if close else ''}"
                )
        return cls(**values)

    @classmethod
    def from_json(cls, text_or_path: str | os.PathLike) -> GatedBertConfig:
        """A record from JSON text or from the path of a JSON file."""
        text = str(text_or_path)
        if not text.lstrip().startswith("{"):
            text = Path(text_or_path).read_text(encoding="utf-8")
        return cls.from_dict(json.loads(text))
