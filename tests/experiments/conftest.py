"""Fixtures for what launches jobs."""

import pytest

from gated_bert.cli import main as cli
from gated_bert.experiments.sweeps import sweep


class _Ended:
    """A job that ran to its end when it was started."""

    def poll(self):
        return 0

    def stop(self):
        pass

    kill = stop


class _Here:
    """A backend whose jobs run in this process."""

    def __init__(self, machine, slots):
        self.slots = slots

    def start(self, job, slot, resume):
        from gated_bert.experiments.runs.run import train

        train(job.config, job.folder, resume=resume)
        return _Ended()


@pytest.fixture
def jobs_here(monkeypatch):
    """Jobs run in this process, one after another: a process takes longer to import the framework than to train.

    Processes of their own are what `test_sweep.py` and the embedded study are about.
    """
    monkeypatch.setattr(sweep, "LocalBackend", _Here)


@pytest.fixture
def commands_here(monkeypatch):
    """Commands of a compression or a pipeline run in this process, too, and no process is measured for its memory."""
    from gated_bert.experiments.models import model_benchmark as benchmark
    from gated_bert.experiments.studies import compress
    from gated_bert.experiments.studies import compression_pipeline as pipeline
    from gated_bert.experiments.sweeps import resources

    monkeypatch.setattr(compress, "run_command", cli.main)
    monkeypatch.setattr(pipeline, "run_command", cli.main)
    # The frameworks have started, with as many threads as they have.
    monkeypatch.setattr(resources, "thread_environment", lambda threads: {})
    monkeypatch.setattr(benchmark, "measure_peak_memory", lambda *_: 10**8)
