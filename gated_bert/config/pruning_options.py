"""What a run prunes, and when: everything but the criterion's own options."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gated_bert.config.option import PRUNING, RUN, FilledIn, option
from gated_bert.config.parts import CRITERIA
from gated_bert.config.presets import MIN_KEPT
from gated_bert.config.space import ENCODER_ROLES, PATTERNS, POOLINGS, ROLES, SCHEDULES, SCOPES, TICKET_CONTROLS

_option = functools.partial(option, group=PRUNING, any_model=True)
_bert_option = functools.partial(option, group=PRUNING)


@dataclass(frozen=True)
class PruningOptions:
    """Criterion × pattern × scope × schedule, by name.

    `start_sparsity` and `end_sparsity` are fractions of the matrices that the pattern is made of; `sparsity_steps` are
    percentages, one per epoch from `pruning_start_epoch` (epochs count from 1).
    """

    enable_pruning: bool = _bert_option(True, "prune at all")
    pruning_method: str = _bert_option("magnitude", "the method")
    criterion: str | None = _bert_option(None, "instead of -p, a point without a name", "--criterion", names=CRITERIA)
    plugins: tuple[str, ...] = _bert_option((), "a Python file of your own that registers criteria, patterns, "
                                            "schedules, gate rules, tasks or commands; may be given again",
                                            "--plugin", metavar="FILE")  # fmt: skip
    criterion_options: dict[str, Any] | None = _option(None, "options of a criterion of your own: name=value",
                                                       "--criterion-options", metavar="NAME=VALUE")  # fmt: skip
    pattern: FilledIn[str] = _option(None, "what is removed at once", "--pattern", choices=PATTERNS, names=PATTERNS)
    scope: FilledIn[str] = _option(None, "what competes: " + ", ".join(SCOPES), "--scope", choices=SCOPES)
    pruning_type: int | None = _bert_option(None, "pattern by TileSparsity's number: 0-8", "--pruning-type",
                                            metavar="N")  # fmt: skip
    tilesparsity_variant: FilledIn[str] = _bert_option(None, "its numbers as TileSparsity's readme describes them "
                                                       "(default), or as its code computes them",
                                                       "--tilesparsity-variant")  # fmt: skip
    granularity: int = _option(128, "columns of a tile", "--granularity", low=1)
    block_size: FilledIn[tuple[int, int]] = _option(None, "rows and columns of a block, e.g. 32x32", "--block-size",
                                                    metavar="SIZE", low=1)  # fmt: skip
    vector_size: int = _option(16, "weights of a vector, of which n are kept", "--vector-size", low=2)
    vector_axis: str = _option("k", "k (inside a column) or n (inside a row)", "--vector-axis", metavar="AXIS",
                               choices=("k", "n"))  # fmt: skip
    tile_dims: FilledIn[str] = _option(None, "k (rows per tile) or kn (columns as well)", "--tile-dims", metavar="DIMS",
                                       choices=("k", "kn"))  # fmt: skip
    g1percent: float = _option(5.0, "per cent of weights that tile_element restores", "--g1percent", metavar="PERCENT",
                               low=0, high=100)  # fmt: skip
    sparsity_per_dim: FilledIn[bool] = _option(None, "sparsity of each of two steps", "--sparsity-per-dim")
    pooling: str | None = _option(None, "a unit's score: " + ", ".join(POOLINGS), "--pooling", choices=POOLINGS)
    normalize_scores: bool = _option(False, "scale scores of each matrix to size 1", "--normalize-scores")
    schedule: FilledIn[str] = _option(None, "how sparsity rises", "--schedule", choices=SCHEDULES, names=SCHEDULES)
    start_sparsity: FilledIn[float] = _option(None, "fraction of the pattern's matrices removed at the start; an "
                                              "explicit -s or -f means a linear schedule", "-s", "--start-sparsity",
                                              group=RUN, metavar="FRACTION", low=0, high=1, fraction=True)  # fmt: skip
    end_sparsity: FilledIn[float] = _option(None, "the same at the end", "-f", "--end-sparsity", group=RUN,
                                            metavar="FRACTION", low=0, high=1, fraction=True)  # fmt: skip
    pruning_start_epoch: int = _option(4, "first pruning epoch, from 1", "-ps", "--pruning-start", group=RUN, low=1)
    pruning_end_epoch: int = _option(23, "last pruning epoch; capped at the epochs", "-pe", "--pruning-end", group=RUN,
                                     low=1)  # fmt: skip
    pruning_every: int = _option(1, "epochs between two rises of the sparsity", "--pruning-every", low=1)
    pruning_warmup: float | None = _bert_option(None, "steps before pruning, or below 1 their share of the run's, "
                                                "instead of -ps", "--pruning-warmup", metavar="STEPS",
                                                low=0)  # fmt: skip
    pruning_cooldown: float | None = _bert_option(None, "steps that are left when the end sparsity is reached, or "
                                                  "their share, instead of -pe", "--pruning-cooldown", metavar="STEPS",
                                                  low=0)  # fmt: skip
    sparsity_steps: tuple[float, ...] | str | None = _option(
        None, "auto, or percentages, one an epoch from the pruning start: 10 25 50", "-ss", "--sparsity-steps",
        group=RUN, metavar="PERCENT")  # fmt: skip
    prunable_roles: tuple[str, ...] = _bert_option(ENCODER_ROLES, "of " + ", ".join(ROLES), "--prunable-roles",
                                                   metavar="ROLE", choices=ROLES)  # fmt: skip
    min_kept: float = _option(MIN_KEPT, "fraction of every matrix that always stays", "--min-kept", metavar="FRACTION",
                              low=0, high=1, fraction=True)  # fmt: skip


@dataclass(frozen=True)
class TicketOptions:
    """Lottery tickets."""

    rewind_step: int | None = option(None, "step whose weights a ticket goes back to", low=0)
    ticket: str | None = option(None, "folder of the model whose masks are the ticket")
    ticket_control: str | None = option(None, "what stands in for the ticket", choices=TICKET_CONTROLS)
