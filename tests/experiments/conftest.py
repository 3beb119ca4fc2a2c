"""Fixtures for what launches jobs."""

import keras
import pytest

from gated_bert.cli import main as cli
from gated_bert.experiments.runs import run
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
        run.train(job.config, job.folder, resume=resume)
        return _Ended()


@pytest.fixture
def jobs_here(monkeypatch):
    """Jobs run in this process, one after another: a process takes longer to import the framework than to train.

    Processes of their own are what `test_sweep.py` and the embedded study are about.
    """
    monkeypatch.setattr(sweep, "LocalBackend", _Here)


@pytest.fixture
def stopped(monkeypatch):
    """`stopped(config, folder, epoch, batch, **options)` trains until Ctrl-C before a batch, both counted from 0."""

    def train_until(config, folder, epoch, batch, **options):
        class Stopping(run.EpochCallback):
            def on_train_batch_begin(self, index, logs=None):
                if (self.epoch, index) == (epoch, batch):
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(run, "EpochCallback", Stopping)
            with pytest.raises(KeyboardInterrupt):
                run.train(config, folder, **options)

    return train_until


@pytest.fixture
def no_steps(monkeypatch):
    """Training steps do nothing: for what is done around them, as tracing one takes longer than all the rest."""

    def make(model, force=False):
        model.train_function = lambda iterator: {"loss": 1.0, "accuracy": 0.5}

    monkeypatch.setattr(keras.Model, "make_train_function", make)
    monkeypatch.setattr(keras.Model, "get_metrics_result", lambda model: {})


@pytest.fixture
def commands_here(monkeypatch):
    """Commands of a compression or a pipeline run in this process, too, and no process is measured for its memory."""
    from gated_bert.experiments.models import model_benchmark as benchmark
    from gated_bert.experiments.studies import compress
    from gated_bert.experiments.studies import compression_pipeline as pipeline
    from gated_bert.experiments.sweeps import resources

    monkeypatch.setattr(compress, "run_command", lambda words, quiet: cli.main(words))
    monkeypatch.setattr(pipeline, "run_command", cli.main)
    # The frameworks have started, with as many threads as they have.
    monkeypatch.setattr(resources, "thread_environment", lambda threads: {})
    monkeypatch.setattr(benchmark, "measure_peak_memory", lambda *_: 10**8)
