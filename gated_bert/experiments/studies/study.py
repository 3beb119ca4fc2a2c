"""Runs a study and copies out what of it is published."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from gated_bert.experiments.reports.compare import compare
from gated_bert.experiments.reports.csv_file import read_csv
from gated_bert.experiments.reports.results import find_runs
from gated_bert.experiments.runs.output_folder import locked
from gated_bert.experiments.studies.catalogue import STUDIES
from gated_bert.experiments.studies.part import Part, Study, with_needed
from gated_bert.experiments.studies.side_by_side import run_side_by_side
from gated_bert.experiments.studies.stages import PLOT, TABLE
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_csv_atomic, write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import StudyRecord

RECORD = "study.json"
"""In a study's folder: its scale."""
_STEPS = ("metrics", "reports", "sp_lime", "similarity", "pos", "students")
"""Folders of a part that are published, too."""
_NOT_PUBLISHED = ("comparison", "pruning_methods", "pos_words", "sp_lime_words")
"""Beginnings of names: the comparison of a part's runs, which the study's own holds, and texts' words one by one."""
_OF_STAGES = ("stage", "value", "sparsity")
_SP_LIME, _OF_TEXTS = "sp_lime.csv", ["text", "words"]
"""A table, and its columns that are not published: the data are others'."""


def run_study(
    name: str,
    scale: str,
    output: Path,
    run_command: Callable[[str, list[str]], int],
    data: str | None = None,
    pretrained: str | None = None,
    jobs: int | None = None,
    names: Sequence[str] = (),
    at_a_time: int = 1,
    dry_run: bool = False,
) -> int:
    """Runs what is left of a study and compares all its runs.

    Args:
        name: one of `STUDIES`.
        scale: one of `SCALES`.
        output: the study's folder; finished runs in it are kept, broken ones go on.
        run_command: takes a sub-command and the words of its command line and returns its exit status.
        data: folder or `hub`; only for studies that are not about embedded data.
        pretrained: id or folder of pretrained weights, for studies that start from them.
        jobs: jobs of a part at a time; None: as many as the machine has room for, of parts beside each other one.
        names: parts that are run, with those that they start from; none: all of them.
        at_a_time: parts beside each other, of which more than one are processes of their own.
        dry_run: whether the commands of the parts are shown instead, as one would type them.

    Returns:
        The exit status of the first command that failed, else 0.

    Raises:
        UserError: pretrained weights are needed and not given, data are given that the study does not read, there is no
            part of a name, another process uses the folder, or it is of another scale.
    """
    study = STUDIES[name]
    if study.pretrained and not pretrained:
        raise UserError(f"study {name}: starts from pretrained weights; name an id or a folder with -pt")
    if study.data and data:
        raise UserError(f"study {name}: is about {study.data} data; leave -d out")
    parts = study.parts[scale]
    chosen = with_needed(parts, names) if names else parts
    jobs = 1 if jobs is None and at_a_time > 1 else jobs
    extra = ["-parallel", *(["-max-parallel-jobs", str(jobs)] if jobs else [])]

    def words_of(part: Part) -> tuple[str, list[str]]:
        words = [word.replace("{study}", str(output.resolve())) for word in part.flags.split()]
        if part.command != "iou":
            weights = ["-pt", pretrained] if pretrained and "-pt" not in words else []
            words += ["-d", study.data or data or "hub", *extra, *weights, "--resume"]
        return part.command, [*words, "-o", str(output / part.name)]

    if dry_run:
        for part in chosen:
            command, words = words_of(part)
            print(f"{part.name}:\n  {shlex.join(['gated-bert', command, *words])}")
        return 0
    with locked(output):
        _check_scale(output, scale)
        if at_a_time > 1:
            status = run_side_by_side(chosen, words_of, output, at_a_time, jobs or 1)
        else:
            status = next(filter(None, (run_command(*words_of(part)) for part in chosen)), 0)
        if not status:
            # Also of what earlier calls have run.
            _write_tables(study, [part for part in parts if part in chosen or (output / part.name).is_dir()], output)
            print(f"\ntables and plots of the study are in {output}")
    return status


def _check_scale(output: Path, scale: str):
    """Refuses a folder of another scale; another study may go on with what one has made."""
    known = read_record(output / RECORD, StudyRecord, tolerant=True) or {"scale": scale}
    if known["scale"] != scale:
        raise UserError(f"-o/--output-dir: {output} holds a study at --scale {known['scale']}, not {scale}; choose "
                        "another folder")  # fmt: skip
    write_json_atomic(output / RECORD, {"scale": scale})


def _write_tables(study: Study, parts: Sequence[Part], output: Path):
    sweeps = [output / part.name for part in parts if part.command == "sweep"]
    if sweeps:
        compare(sweeps, output)
    _join_stages([folder / TABLE for folder in sweeps], output)
    families = [output / part.name for part in parts if part.command == "compress"]
    if families:
        from gated_bert.experiments.studies.speed_table import write_speed

        write_speed(output, families)
    if study.accuracy:
        from gated_bert.experiments.studies.accuracy_table import write_accuracy

        write_accuracy(output)


def _join_stages(tables: Sequence[Path], output: Path):
    """One table and one plot of the stages of all parts that have some."""
    import pandas as pd

    from gated_bert.experiments.reports.drawing import tolerated
    from gated_bert.experiments.studies.stage_table import write_stage_plot

    found = [read_csv(table, _OF_STAGES, ("task", "method", "metric")) for table in tables if table.exists()]
    if found:
        joined = pd.concat(found, ignore_index=True)
        write_csv_atomic(output / TABLE, joined)
        with tolerated(output / PLOT):
            write_stage_plot(joined, output / PLOT)


def publish(output: Path, folder: Path, places: Sequence[str] = ()) -> None:
    """Copies a study's tables and plots to `folder`; its single runs the same command makes again.

    Args:
        output: the study's folder.
        folder: where the copies go.
        places: paths of this machine, of which the copies keep only the last name.
    """
    from gated_bert.experiments.studies.accuracy_table import TABLE as ACCURACY
    from gated_bert.experiments.studies.speed_table import TABLE as SPEED

    runs = {run.resolve() for run in find_runs(output)}
    steps = (file for step in _STEPS for file in output.glob(f"*/{step}/*"))
    # Those tables have the rows of the parts' own.
    joined = {"oneshot": ACCURACY, "family": SPEED, "benchmark": SPEED}
    left_out = (*_NOT_PUBLISHED, *(name for name, table in joined.items() if (output / table).is_file()))
    parts = [file for file in (*output.glob("*/*"), *steps) if not file.name.startswith(left_out)]
    for file in (*output.iterdir(), *parts):
        if file.suffix in (".csv", ".png") and file.parent.resolve() not in runs:
            _copy(file, folder / file.relative_to(output), places)


def _copy(file: Path, target: Path, places: Sequence[str]):
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        shutil.copyfile(file, target)
        return
    if file.name == _SP_LIME:
        write_csv_atomic(target, read_csv(file, others=_OF_TEXTS).drop(columns=list(_OF_TEXTS)))
        return
    text = file.read_text(encoding="utf-8")
    for place in places:
        text = text.replace(str(Path(place).absolute()), Path(place).name).replace(place, Path(place).name)
    target.write_text(text, encoding="utf-8")
