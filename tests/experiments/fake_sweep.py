"""`gated-bert sweep` with `fake_job.py` in the place of training: the same flags, the same launcher."""

import sys
from pathlib import Path
from unittest import mock

from gated_bert.cli import main as cli
from gated_bert.experiments.sweeps import jobs, sweep

FAKE_JOB = Path(__file__).with_name("fake_job.py")
TRAIN = jobs.job_command


def fake_command(folder: Path) -> tuple[str, ...]:
    return (sys.executable, str(FAKE_JOB), *TRAIN(folder)[4:])


with mock.patch.object(jobs, "job_command", fake_command), mock.patch.object(sweep, "GRACE_SECONDS", 2.0):
    sys.exit(cli.main(["sweep", "-d", "embedded", "-m", "tiny", *sys.argv[1:]]))
