"""From a base model to the report on what compression does to its explanations: commands, one after another."""

from __future__ import annotations

import shlex
import time

from gated_bert.experiments.models.benchmark_table import RECORD as BENCHMARK
from gated_bert.experiments.runs.output_folder import locked
from gated_bert.experiments.studies.command_process import run_command
from gated_bert.experiments.studies.compress import METRICS
from gated_bert.experiments.studies.pipeline_plan import SIMILARITY, Pipeline
from gated_bert.experiments.sweeps.overview import clock
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import BenchmarkRecord, PipelineRecord

RECORD = "pipeline.json"

def print_pipeline(pipeline: Pipeline) -> int:
    """Shows the commands of all steps."""
    for name, words in pipeline.steps():
        print(f"{name}: left out" if name in pipeline.skip else f"{name}:\n  {_shown(words)}")
    return 0


def run_pipeline(pipeline: Pipeline) -> int:
    """Runs what is left of a pipeline, each step in a process of its own, and writes its report.

    A step is done where its command is the same as when it ended well, and no step before it has run since.

    Returns:
        The exit status of the first step that failed, else 0.

    Raises:
        UserError: the folder is in use, or a table is malformed.
        KeyboardInterrupt: stopped; its text says in which step.
    """
    out, changed = pipeline.output, False
    with locked(out):
        done = (read_record(out / RECORD, PipelineRecord, tolerant=True) or {}).get("steps", {})
        for name, words in pipeline.steps():
            if name in pipeline.skip:
                continue
            if not changed and done.get(name, {}).get("words") == words:
                print(f"{name}: done before", flush=True)
                continue
            changed = True
            if name == "similarity":
                _hand_over_metrics(pipeline)
            status, seconds = _run(name, words)
            if status:
                return status
            done[name] = {"words": words, "seconds": round(seconds, 1)}
            write_json_atomic(out / RECORD, {"steps": done})
        if "report" not in pipeline.skip:
            from gated_bert.experiments.studies.pipeline_report import write_report

            for path in write_report(pipeline, done):
                print(f"wrote {path}")
    return 0


def _run(name: str, words: list[str]) -> tuple[int, float]:
    print(f"\n{name}:\n  {_shown(words)}", flush=True)
    began = time.monotonic()
    try:
        status = run_command(words)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped in step {name}; the same command with --resume goes on") from None
    seconds = time.monotonic() - began
    if status:
        print(f"step {name} ended with exit status {status}; mend it and go on with --resume, or leave it out with "
              f"--skip {name}", flush=True)  # fmt: skip
    else:
        print(f"{name}: done after {clock(seconds)}", flush=True)
    return status, seconds


def _hand_over_metrics(pipeline: Pipeline):
    """Tells the comparison what the benchmark of the same models on the same data has found out, which takes long."""
    from gated_bert.experiments.explanations.model_facts import JUDGED, Judging, keep_benchmark

    measured = read_record(pipeline.output / METRICS / BENCHMARK, BenchmarkRecord, tolerant=True)
    if measured:
        judging = Judging(pipeline.data[0], None, "--allow-partial" in pipeline.data)
        keep_benchmark(measured, judging, pipeline.output / SIMILARITY / JUDGED)


def _shown(words: list[str]) -> str:
    return shlex.join(["gated-bert", *words])
