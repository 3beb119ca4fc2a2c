"""From one task to deployed models: pruned to several levels, shrunk, exported, quantised and measured side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from gated_bert.compression.folders import shrink_folder
from gated_bert.compression.onnx_export import export_file
from gated_bert.compression.quantize import quantize_file
from gated_bert.experiments.models.benchmark_table import PLOT, RECORD, TABLE
from gated_bert.experiments.reports.drawing import files_there
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.studies.command_process import run_command
from gated_bert.experiments.studies.compress_report import write_report
from gated_bert.experiments.studies.oneshot import run_oneshot
from gated_bert.experiments.sweeps.jobs import Plan
from gated_bert.models.folder import WEIGHTS, same_model
from gated_bert.support.paths import number_name
from gated_bert.support.records import read_record
from gated_bert.support.schemas import BenchmarkRecord

MODELS, METRICS, REPORTS = "models", "metrics", "reports"
PRECISIONS = ("int8", "fp16")


def compress(output: Path, dense: Plan, pruned: Plan, levels: Sequence[float], sweep: Callable[[Plan], int]) -> int:
    """Runs what is left of a compression study.

    Args:
        output: the study's folder; afterwards `runs/` holds the training, `models/` a model folder `base`,
            `pruned_20` … and `shrunk_20` …, and in `onnx/`, `int8/` and `fp16/` an exported file of `base` and of
            every shrunk one; `metrics/` the benchmark of them all, and `reports/` table and figure.
        dense: the dense run, of `oneshot_plans`.
        pruned: the runs that are pruned from it, one per level.
        levels: per cent of the units that each removes.
        sweep: runs one plan and returns its exit status.

    Returns:
        The exit status of the first sweep in which a job failed, or of the benchmark, else 0.

    Raises:
        UserError: a model that cannot be shrunk or exported, or a file that cannot be written.
    """
    status = run_oneshot(dense, pruned, sweep)
    if status:
        return status
    runs = {"base": dense.jobs[0].folder} if dense.jobs else {}
    runs |= {f"pruned_{number_name(level)}": job.folder for level, job in zip(levels, pruned.jobs, strict=True)}
    models = make_models(output / MODELS, {name: folder / MODEL for name, folder in runs.items()})
    config = pruned.jobs[0].config
    status = measure_models(output / METRICS, models, config.data, config.allow_partial)
    if status:
        return status
    for path in write_report(output / METRICS / RECORD, output / MODELS, output / REPORTS):
        print(f"wrote {path}")
    return 0


def make_models(folder: Path, trained: dict[str, Path]) -> list[Path]:
    """Makes what is missing of the models of a study, or older than what it is made of.

    Args:
        folder: where the models go.
        trained: name → model folder of `base` and of every `pruned_…`.

    Returns:
        All models: the folders, then the exported files.
    """
    folders = {}
    for name, source in trained.items():
        folders[name] = made(folder / name, source, copied)
    for name, source in list(folders.items()):
        if name.startswith("pruned_"):
            small = name.replace("pruned", "shrunk")
            folders[small] = made(folder / small, source, shrink_folder)
    files = []
    for name, source in folders.items():
        # A pruned model's file would be that of its shrunk one with zeros in it.
        if not name.startswith("pruned_"):
            exported = made(folder / "onnx" / f"{name}.onnx", source, _export)
            fewer = [made(folder / bits / exported.name, exported, _quantizer(bits)) for bits in PRECISIONS]
            files += [exported, *fewer]
    return [*folders.values(), *files]


def measure_models(
    folder: Path, models: Sequence[Path], data: str, allow_partial: bool, batches: Sequence[int] = (),
    lengths: Sequence[int] = (), threads: int = 1, quiet: bool = False,
) -> int:  # fmt: skip
    """Measures all models side by side, unless that was done since the last of them was made.

    Args:
        folder: of the tables.
        models: model folders and ONNX files.
        data: what they are judged on.
        allow_partial: whether `*_partial` files are accepted.
        batches: numbers of sequences; by default those of `gated-bert benchmark`.
        lengths: tokens of each; the same.
        threads: threads of a product.
        quiet: as of `run_command`.

    Returns:
        The exit status of `gated-bert benchmark`, which has a process of its own: it limits that one's threads.
    """
    record = read_record(folder / RECORD, BenchmarkRecord, tolerant=True) or {}
    newest = max(map(written, models))
    measured = {row["path"] for row in record.get("models", ())}
    if record.get("complete") and measured == set(map(str, models)) and written(folder / RECORD) >= newest:
        print(f"measured already: {files_there(folder, TABLE, PLOT)} in {folder}")
        return 0
    words = ["--allow-partial"] * allow_partial + ["--threads", str(threads)]
    for flag, values in (("--batches", batches), ("--lengths", lengths)):
        words += [flag, ",".join(map(str, values))] if values else []
    return run_command(["benchmark", *map(str, models), "-o", str(folder), "-d", data, *words], quiet)


def made(target: Path, source: Path, make: Callable[[Path, Path], None]) -> Path:
    """`target`, made of `source` where it is missing or older than that."""
    if not target.exists() or written(target) < written(source):
        remove(target)
        print(f"\n{target}:", flush=True)
        make(source, target)
    return target


def remove(target: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)


def written(model: Path) -> float:
    """When a model folder or an exported file was written, in seconds since the epoch."""
    return (model / WEIGHTS if model.is_dir() else model).stat().st_mtime


def copied(source: Path, target: Path) -> None:
    """Makes `target` a copy of a model folder."""
    same_model(source, target)
    print(f"a copy of {source}")


def _export(source: Path, target: Path):
    export_file(source, target, "standard")


def _quantizer(precision: str) -> Callable[[Path, Path], None]:
    return lambda source, target: quantize_file(source, target, precision)
