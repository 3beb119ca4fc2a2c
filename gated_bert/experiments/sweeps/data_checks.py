"""What jobs read, looked at before any of them starts: data, tokenisers, teachers, places for resume points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.flag_table import LABELS
from gated_bert.config.parts import acts_inside_epochs, calibrated
from gated_bert.config.pruning_window import pruning_window
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.support.checks import FlagError
from gated_bert.tasks.kinds import SPANS

if TYPE_CHECKING:
    from gated_bert.tasks.task import Task

_OF_TEACHERS = ("teacher", "distill_layers", "pretrained", "vocab", "max_len", "num_layers", "d_model")
"""Fields that decide whether a run can learn from its teacher."""

def check_data(jobs: Sequence[Job]) -> list[str]:
    """Reads the data of every task and tries every `--checkpoint-dir`, so that what is wrong is said before any job.

    Returns:
        Sentences about what was decided on own data and about the heads of pretrained weights.

    Raises:
        FlagError: a refused field of the record.
        UserError: missing or malformed data, or no way to write there.
    """
    from gated_bert.models.checkpoints import head_notes
    from gated_bert.models.run_family import run_tokenizer
    from gated_bert.tasks.calibration_texts import calibration_examples
    from gated_bert.tasks.data import load_task_data
    from gated_bert.tasks.own import own_data_notes
    from gated_bert.tasks.tagging import check_metrics
    from gated_bert.tasks.task import get_task

    notes: list[str] = []
    for config in {job.config.task: job.asked for job in jobs}.values():
        try:
            if config.data == "embedded":
                task = get_task(config.task)
            else:
                data = load_task_data(config)
                task = data.task
                notes += own_data_notes(data.source)
            check_metrics(task)
            run_tokenizer(config)
            _check_windows([job.config for job in jobs if job.config.task == config.task], task)
            notes += _check_teachers([job.config for job in jobs if job.after is None], config.task, task)
        except ConfigError as error:
            raise FlagError(error.describe(LABELS.get(error.field, error.field))) from None
        notes += head_notes(config.pretrained, task)
        if config.calibration_file and any(
            job.config.task == config.task and job.config.criterion in calibrated() for job in jobs
        ):
            calibration_examples(config, task)
    for place in filter(None, {job.config.checkpoint_dir for job in jobs}):
        from gated_bert.experiments.runs.resume_store import check_place

        check_place(place)
    return notes


def _check_windows(configs: Sequence[GatedBertConfig], task: Task):
    """Refuses warm-ups and cool-downs in steps that leave none for pruning; windows of spans are not counted."""
    from gated_bert.tasks.data import load_task_data

    examples: dict[int | None, int] = {}
    for config in configs:
        in_steps = max(config.pruning_warmup or 0, config.pruning_cooldown or 0) >= 1
        if config.criterion is None or task.kind == SPANS or not in_steps:
            continue
        if config.train_examples not in examples:
            examples[config.train_examples] = len(load_task_data(config).train)
        steps = math.ceil(examples[config.train_examples] / config.batch_size)
        pruning_window(config, steps, acts_inside_epochs(config))


def _check_teachers(configs: Sequence[GatedBertConfig], name: str, task: Task) -> list[str]:
    """Looks at every teacher of the runs of one task, `name` in their records; returns what there is to say."""
    taught = [each for each in configs if each.task == name and each.teacher is not None]
    if not taught:
        return []
    from gated_bert.experiments.runs.teacher_folder import check_teacher
    from gated_bert.models.run_family import run_tokenizer

    different = {tuple(getattr(each, field) for field in _OF_TEACHERS): each for each in taught}
    found = dict.fromkeys(check_teacher(each, task, run_tokenizer(each)).note for each in different.values())
    return [note for note in found if note]
