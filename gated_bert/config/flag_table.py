"""The flags of a run: one table, read with the standard library alone so that an answer never waits for a framework."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from gated_bert.config import GatedBertConfig
from gated_bert.config.methods import CRITERIA, METHODS
from gated_bert.config.presets import PRESETS
from gated_bert.config.record_checks import PATTERNS, ROLES, SCHEDULES, SCOPES, TASK_TYPES
from gated_bert.support.checks import FlagError, as_number, did_you_mean

SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Words of a flag that is true or false."""


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        options: its spellings, short one first.
        name: the field of `GatedBertConfig` or of the launcher that it sets.
        kind: "int", "float", "text", "list" (commas or spaces), "size" (32x16, or 32 for 32x32), "switch" (true or
            false, alone: true) or "alone".
        help: what it sets; shown by `-h`.
        group: the heading in `-h`.
        metavar: what stands for the value in `-h`.
        choices: all that is allowed, where that is a fixed list no record checks.
        nothing: the word that stands for None, e.g. "none".
    """

    options: tuple[str, ...]
    name: str
    kind: str
    help: str
    group: str
    metavar: str = "N"
    choices: tuple[str, ...] = ()
    nothing: str | None = None

    @property
    def label(self) -> str:
        """The spellings as messages show them: `-e/--epochs`."""
        return "/".join(self.options)

    def read(self, words: list[str]) -> object:
        """The value of `words`; what is no number stays text, for the record to refuse and say what is allowed."""
        if self.kind == "list":
            value = tuple(item for word in words for item in word.replace(",", " ").split())
        elif self.kind == "int":
            value = as_number(words[0], int)
        elif self.kind == "size":
            sides = [as_number(side, int) for side in words[0].lower().split("x")]
            value = tuple(sides * 2 if len(sides) == 1 else sides)
        elif self.kind == "float":
            value = None if words[0] == self.nothing else as_number(words[0], float)
        elif self.kind == "switch":
            value = _switch(self, words[0] if words else "true")
        else:
            value = words[0]
        for item in value if self.choices and self.kind == "list" else ():
            _choose(self, item)
        if self.choices and self.kind == "text":
            _choose(self, value)
        return value


def _switch(flag: Flag, word: str) -> bool:
    if word.lower() not in SWITCH:
        raise FlagError.refused(flag.label, word, "true, false")
    return SWITCH[word.lower()]


def _choose(flag: Flag, word: str):
    if word not in flag.choices:
        raise FlagError.refused(flag.label, word, ", ".join(flag.choices) + did_you_mean(word, flag.choices))


_RUN, _MODEL, _DATA, _TRAIN, _PRUNE, _OUT = "run", "model", "data", "training", "pruning", "jobs and output"
_YES = "true|false"

RUN_FLAGS = (
    Flag(("-e", "--epochs"), "epochs", "int", "training epochs", _RUN),
    Flag(("-b", "--batch-size"), "batch_size", "int", "examples in a batch", _RUN),
    Flag(("-l", "--learning-rate"), "learning_rate", "float", "peak learning rate", _RUN, "RATE"),
    Flag(("-m", "--model-size"), "model_size", "text", ", ".join(PRESETS), _RUN, "SIZE"),
    Flag(("-p", "--pruning-methods"), "methods", "list", ", ".join(METHODS), _RUN, "METHOD",
         (*METHODS, "none")),
    Flag(("-s", "--start-sparsity"), "start_sparsity", "float",
         "fraction of the pattern's matrices removed at the start; an explicit -s or -f means a linear schedule", _RUN,
         "FRACTION"),
    Flag(("-f", "--end-sparsity"), "end_sparsity", "float", "the same at the end", _RUN, "FRACTION"),
    Flag(("-ps", "--pruning-start"), "pruning_start_epoch", "int", "first pruning epoch, from 1", _RUN),
    Flag(("-pe", "--pruning-end"), "pruning_end_epoch", "int", "last pruning epoch; capped at the epochs", _RUN),
    Flag(("-ss", "--sparsity-steps"), "sparsity_steps", "list",
         "auto, or percentages, one an epoch from the pruning start: 10 25 50", _RUN, "PERCENT"),
    Flag(("-se", "--spt-explore"), "spt_explore_per_layer", "switch",
         "SPT explores one layer role a batch instead of all", _RUN, _YES),
    Flag(("-t", "--task"), "tasks", "list", "one or more tasks, or all (those of GLUE)", _RUN, "TASK"),
    Flag(("-ml", "--max-len"), "max_len", "int", "longest text in tokens, 8 to 512; squad: 384 where not given", _RUN),
    Flag(("-d", "--data"), "data", "text", "hub, embedded, a folder of official files, or a .tsv, .csv or .jsonl file",
         _DATA, "SOURCE"),
    Flag(("--allow-partial",), "allow_partial", "switch", "accept *_partial files; every table says so", _DATA, _YES),
    Flag(("--train-examples",), "train_examples", "int", "train on a seeded choice of so many examples", _DATA),
    Flag(("--vocab",), "vocab", "text", "a vocab.txt or tokenizer.json, or its folder", _DATA, "PATH"),
    Flag(("--text-column",), "text_column", "text", "column of the text in a file of your own", _DATA, "NAME"),
    Flag(("--text-pair-column",), "text_pair_column", "text", "column of the second text", _DATA, "NAME"),
    Flag(("--label-column",), "label_column", "text", "column of the label", _DATA, "NAME"),
    Flag(("--task-type",), "task_type", "text", "what labels of a file of your own are: " + ", ".join(TASK_TYPES)
         + "; by default told from them", _DATA, "TYPE"),
    Flag(("--doc-stride",), "doc_stride", "int", "squad: tokens between the starts of two windows of a context; "
         "by default a third of -ml, at most 128", _DATA),
    Flag(("--n-best",), "n_best_size", "int", "squad: likeliest starts and ends of a window that are combined", _DATA),
    Flag(("--max-answer-length",), "max_answer_length", "int", "squad: most tokens of an answer", _DATA),
    Flag(("-pt", "--pretrained"), "pretrained", "text", "weights: a Hugging Face id or a folder", _MODEL, "FROM"),
    Flag(("--num-layers",), "num_layers", "int", "encoder layers; of pretrained weights the first so many", _MODEL),
    Flag(("--d-model",), "d_model", "int", "hidden size", _MODEL),
    Flag(("--num-heads",), "num_heads", "int", "attention heads", _MODEL),
    Flag(("--dff",), "dff", "int", "intermediate size", _MODEL),
    Flag(("--vocab-size",), "vocab_size", "int", "rows of the token embedding", _MODEL),
    Flag(("--dropout",), "dropout_rate", "float", "dropout rate", _MODEL, "RATE"),
    Flag(("--gate-trainable",), "gate_trainable", "switch", "train the gates as well", _MODEL, _YES),
    Flag(("--gate-init-value",), "gate_init_value", "float", "what open gates start at", _MODEL, "VALUE"),
    Flag(("--optimizer",), "optimizer", "text", "adamw, adam, sgd", _TRAIN, "NAME"),
    Flag(("--weight-decay",), "weight_decay", "float", "weight decay", _TRAIN, "RATE"),
    Flag(("--momentum",), "momentum", "float", "momentum of sgd", _TRAIN, "RATE"),
    Flag(("--warmup",), "warmup_ratio", "float", "fraction of the steps that warm up", _TRAIN, "FRACTION"),
    Flag(("--clip-norm",), "clip_norm", "float", "largest gradient norm, or none", _TRAIN, "NORM", (), "none"),
    Flag(("--seed",), "seed", "int", "seed of the run", _TRAIN),
    Flag(("--precision",), "precision", "text", "float32, mixed_bfloat16, mixed_float16", _TRAIN, "POLICY"),
    Flag(("--jit-compile",), "jit_compile", "switch", "compile training with XLA, as JAX always does", _TRAIN, _YES),
    Flag(("--devices",), "devices", "int", "devices that share each batch of a run, or all", _TRAIN),
    Flag(("--checkpoint-steps",), "checkpoint_steps", "int",
         "steps between two resume points; more where writing them would take over 5 % of the time", _TRAIN),
    Flag(("--checkpoint-dir",), "checkpoint_dir", "text", "where resume points are kept besides, to outlive the "
         "machine: a folder on another disk, or a URL such as s3://bucket/folder", _TRAIN, "PLACE"),
    Flag(("--resource-log",), "resource_seconds", "float",
         "seconds between two readings of memory and processor; 0: no log", _TRAIN, "SECONDS"),
    Flag(("--criterion",), "criterion", "text", "instead of -p, a point without a name: " + ", ".join(CRITERIA), _PRUNE,
         "NAME"),
    Flag(("--pattern",), "pattern", "text", "what is removed at once: " + ", ".join(PATTERNS), _PRUNE, "NAME"),
    Flag(("--scope",), "scope", "text", "what competes: " + ", ".join(SCOPES), _PRUNE, "NAME"),
    Flag(("--pruning-type",), "pruning_type", "int", "pattern by TileSparsity's number: 0-8", _PRUNE),
    Flag(("--tilesparsity-variant",), "tilesparsity_variant", "text", "its numbers as TileSparsity's readme describes "
         "them (default), or as its code computes them", _PRUNE, "NAME"),
    Flag(("--granularity",), "granularity", "int", "columns of a tile", _PRUNE),
    Flag(("--block-size",), "block_size", "size", "rows and columns of a block, e.g. 32x32", _PRUNE, "SIZE"),
    Flag(("--vector-size",), "vector_size", "int", "weights of a vector, of which n are kept", _PRUNE),
    Flag(("--vector-axis",), "vector_axis", "text", "k (inside a column) or n (inside a row)", _PRUNE, "AXIS"),
    Flag(("--tile-dims",), "tile_dims", "text", "k (rows per tile) or kn (columns as well)", _PRUNE, "DIMS"),
    Flag(("--g1percent",), "g1percent", "float", "per cent of weights that tile_element restores", _PRUNE, "PERCENT"),
    Flag(("--sparsity-per-dim",), "sparsity_per_dim", "switch", "sparsity of each of two steps", _PRUNE, _YES),
    Flag(("--pooling",), "pooling", "text", "a unit's score: mean, l1, l2, published", _PRUNE, "NAME"),
    Flag(("--normalize-scores",), "normalize_scores", "switch", "scale scores of each matrix to size 1", _PRUNE, _YES),
    Flag(("--taylor-variant",), "taylor_variant", "text", "default, published", _PRUNE, "NAME"),
    Flag(("--activation-variant",), "activation_variant", "text", "of activation_magnitude: default (mean |x|), or "
         "published (|mean x|)", _PRUNE, "NAME"),
    Flag(("--schedule",), "schedule", "text", "how sparsity rises: " + ", ".join(SCHEDULES), _PRUNE, "NAME"),
    Flag(("--prunable-roles",), "prunable_roles", "list", "of " + ", ".join(ROLES), _PRUNE, "ROLE"),
    Flag(("--min-kept",), "min_kept", "float", "fraction of every matrix that always stays", _PRUNE, "FRACTION"),
    Flag(("--spt-epsilon",), "spt_epsilon", "float", "fraction of the open units explored a step", _PRUNE, "FRACTION"),
    Flag(("--spt-unit",), "spt_unit", "text", "what SPT explores; its pattern", _PRUNE, "NAME"),
    Flag(("--spt-reward-alpha",), "spt_reward_alpha", "float", "weight of a new reward in the mean", _PRUNE, "ALPHA"),
    Flag(("--spt-reward",), "spt_reward", "text", "measured, taylor", _PRUNE, "NAME"),
    Flag(("--spt-credit",), "spt_credit", "text", "mean, regression", _PRUNE, "NAME"),
    Flag(("--spt-variant",), "spt_variant", "text", "default, published", _PRUNE, "NAME"),
    Flag(("--movement-frequency",), "movement_pruning_frequency_steps", "int", "steps between two masks", _PRUNE),
    Flag(("--movement-schedule",), "movement_schedule", "text", "linear, cubic", _PRUNE, "NAME"),
    Flag(("--movement-learning-rate",), "movement_learning_rate", "float", "rate of the scores; with Adam, from scores "
         "of 0, its size changes no rank of movement", _PRUNE, "RATE"),
    Flag(("--soft-movement-threshold",), "soft_movement_threshold", "float", "final threshold", _PRUNE, "VALUE"),
    Flag(("--soft-movement-penalty",), "soft_movement_penalty", "float", "weight of its penalty", _PRUNE, "WEIGHT"),
    Flag(("--l0-penalty",), "l0_penalty", "float", "weight of the expected-L0 penalty", _PRUNE, "WEIGHT"),
    Flag(("--score-batches",), "score_batches", "int", "batches that saliency scores are summed over", _PRUNE),
    Flag(("--noise",), "noise", "text", "of smooth_grad…: constant, or activation (times the deviation of a layer's "
         "inputs)", _PRUNE, "KIND"),
    Flag(("--noise-std",), "noise_std", "float", "standard deviation of that noise", _PRUNE, "VALUE"),
    Flag(("--smooth-passes",), "smooth_passes", "int", "noisy passes of a batch that smooth_grad… averages", _PRUNE),
    Flag(("-o", "--output-dir"), "output", "text", "folder of the results", _OUT, "FOLDER"),
    Flag(("--resume",), "resume", "alone", "skip what is finished and go on with what is not", _OUT),
)  # fmt: skip

SWEEP_FLAGS = RUN_FLAGS + (
    Flag(("--seeds",), "seeds", "list", "several seeds: 1,2,3", _OUT, "SEED"),
    Flag(("-parallel", "--parallel"), "parallel", "alone", "run jobs at the same time", _OUT),
    Flag(("-max-parallel-jobs", "--max-parallel-jobs"), "max_parallel_jobs", "int",
         "most jobs at a time; by default what cores, memory and GPUs allow", _OUT),
    Flag(("--output-mode",), "output_mode", "text", "bars, logs, both", _OUT, "MODE", ("bars", "logs", "both")),
    Flag(("--stages",), "stages", "list", "prune in stages, each from the last weights: 25,50,75", _OUT, "PERCENT"),
    Flag(("--mode",), "mode", "text", "of stages: pretrain (dense models) or prune (from them, or from -pt)", _OUT,
         "MODE", ("pretrain", "prune")),
    Flag(("--device",), "device", "int", "the GPU that stages run on", _OUT),
    Flag(("--dry-run",), "dry_run", "alone", "show the configuration and the jobs, start nothing", _OUT),
    Flag(("--check",), "check", "alone", "only check the flags", _OUT),
)  # fmt: skip

JOB_FLAGS = RUN_FLAGS + (
    Flag(("--config-file",), "config_file", "text", "a JSON record of the run instead of flags", _OUT, "FILE"),
    Flag(("--run-dir",), "run_dir", "text", "folder of this run", _OUT, "FOLDER"),
)


PRUNING_FIELDS = frozenset(flag.name for flag in RUN_FLAGS if flag.group == _PRUNE) | {
    "start_sparsity", "end_sparsity", "pruning_start_epoch", "pruning_end_epoch", "sparsity_steps",
    "spt_explore_per_layer",
}  # fmt: skip
"""Fields that mean nothing to a run that prunes nothing."""


def labels(flags: tuple[Flag, ...]) -> dict[str, str]:
    """Name of a field → its flag as messages show it."""
    return {flag.name: flag.label for flag in flags}


def record_fields() -> set[str]:
    """The names of the fields of `GatedBertConfig`."""

    return {field.name for field in dataclasses.fields(GatedBertConfig)}


def hint(name: str, value: object) -> str:
    """A remark for a refused value that looks like a known slip: a percentage where a fraction is meant."""
    fraction = name in ("start_sparsity", "end_sparsity", "dropout_rate", "warmup_ratio", "min_kept")
    if fraction and isinstance(value, int | float) and math.isfinite(value) and 1 < value <= 100:
        return f" (did you mean {value / 100:g}?)"
    return ""


DEFAULTS = {
    "epochs": "25",
    "batch_size": "96",
    "learning_rate": "2e-5",
    "model_size": "base",
    "methods": "magnitude,movement,spt,baseline",
    "start_sparsity": "0.0",
    "end_sparsity": "0.99",
    "pruning_start_epoch": "4",
    "pruning_end_epoch": "23",
    "sparsity_steps": "auto",
    "spt_explore_per_layer": "false",
    "tasks": "sst2",
    "max_len": "128",
    "data": "hub",
    "output": "results",
    "seed": "42",
}
"""What holds where neither a flag nor a script says otherwise, as it would be typed."""
LABELS = labels(SWEEP_FLAGS + JOB_FLAGS) | {
    "pruning_method": "-p/--pruning-methods",
    "task": "-t/--task",
    "rewind_step": "--rewind-step",
    "ticket_control": "--controls",
}
