"""What is asked of a launcher: how jobs are run, and nothing that decides what a run computes."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from gated_bert.config.option import OUTPUT, check_declared, option

_option = functools.partial(option, group=OUTPUT)
BEYOND = "sweeps beyond one machine"


@dataclass(frozen=True)
class LauncherOptions:
    """How the jobs of a sweep are run.

    Raises:
        ConfigError: a value that is not allowed.
    """

    resume: bool = _option(False, "skip what is finished and go on with what is not", "--resume", alone=True)
    parallel: bool = _option(False, "run jobs at the same time", "-parallel", "--parallel", alone=True)
    max_parallel_jobs: int | None = _option(None, "most jobs at a time; by default what cores, memory and GPUs allow",
                                            "-max-parallel-jobs", "--max-parallel-jobs", low=1)  # fmt: skip
    output_mode: str | None = _option(None, "bars, logs, both", "--output-mode", metavar="MODE",
                                      choices=("bars", "logs", "both"))  # fmt: skip
    publish: str | None = _option(None, "copy tables and plots here", "--publish", metavar="FOLDER")
    backend: str = _option("local", "local (processes of this machine) or ray (tasks of a Ray cluster)", "--backend",
                           group=BEYOND, choices=("local", "ray"))  # fmt: skip
    ray_address: str | None = _option(None, "a running cluster: auto, or HOST:PORT of its head; without it Ray is "
                                      "started on this machine", "--ray-address", group=BEYOND,
                                      metavar="ADDRESS")  # fmt: skip
    slurm: str | None = _option(None, "write the records of all runs, and this script that submits them as an array "
                                "job; start nothing", "--slurm", group=BEYOND, metavar="FILE")  # fmt: skip

    def __post_init__(self):
        check_declared(self)

    @classmethod
    def among(cls, values: dict[str, Any]) -> LauncherOptions:
        """Those of `values` that concern the launcher."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})
