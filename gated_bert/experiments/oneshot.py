"""One-shot pruning: dense models, each pruned at once by every strategy to every sparsity, then fine-tuned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gated_bert.config import GatedBertConfig
from gated_bert.config_checks import ENCODER_ROLES
from gated_bert.errors import UserError
from gated_bert.experiments.jobs import Job, Plan, dense_folder, dense_plan, job_command, run_folder_name
from gated_bert.experiments.overview import configuration_text

PRUNABLE_ROLES = (*ENCODER_ROLES, "pooler")
"""What ShrinkBench's strategies prune of a BERT: every matrix but the classifier's."""
DENSE = "dense"


@dataclass(frozen=True)
class Point:
    """How much is pruned, said in one of two ways.

    Args:
        compression: parameters ÷ parameters left.
        sparsity: fraction of the prunable weights removed.
        compression_of: what `compression` counts: `all` parameters, or the `prunable` weights alone.
    """

    compression: float | None = None
    sparsity: float | None = None
    compression_of: str = "all"

    @property
    def name(self) -> str:
        """For folders and messages: `compression3.5`, `sparsity91.4`."""
        if self.compression is not None:
            return f"compression{self.compression:g}"
        return f"sparsity{100 * self.sparsity:g}"

    def sparsity_in(self, parameters: int, prunable: int) -> float:
        """The sparsity in a model of `parameters` parameters, of which `prunable` can be pruned.

        Raises:
            UserError: no sparsity gives the compression.
        """
        if self.compression is None:
            return self.sparsity
        counted = parameters if self.compression_of == "all" else prunable
        kept = (counted / self.compression - (counted - prunable)) / prunable
        if not 0 < kept <= 1:
            largest = math.floor(100 * counted / (counted - prunable)) / 100 if counted > prunable else math.inf
            raise UserError(
                f"--compression: {self.compression:g} is refused; allowed: 1 to {largest:g}, since {prunable:,} of "
                f"{counted:,} parameters can be pruned"
            )
        return 1 - kept


def oneshot_plans(plan: Plan, points: Sequence[Point], dense_epochs: int) -> tuple[Plan, Plan]:
    """The dense runs, none where nothing is trained before, and the runs that are pruned to each of `points`.

    Args:
        plan: one job per strategy, task and seed; its epochs are those of the fine-tuning.
        points: how much each strategy prunes.
        dense_epochs: epochs of dense training; 0 prunes the `pretrained` weights as they are.

    Raises:
        UserError: a compression that no sparsity gives.
    """
    dense = dense_plan(plan, plan.output / DENSE, epochs=dense_epochs or 1)
    # Not looked up where no point asks.
    asked = any(point.compression is not None for point in points)
    for job in plan.jobs if asked else ():
        check_compressible(job.config)
    sizes = {job.config.task: model_sizes(job.config) if asked else (0, 0) for job in dense.jobs}
    jobs = [
        _pruned_job(job, point, point.sparsity_in(*sizes[job.config.task]), plan, dense_epochs > 0)
        for job in plan.jobs
        for point in points
    ]
    if not dense_epochs:
        dense = dataclasses.replace(dense, jobs=())
    return dense, dataclasses.replace(plan, jobs=tuple(jobs))


def describe(dense: Plan, pruned: Plan, with_jobs: bool = False) -> str:
    """The configuration, and the jobs where asked for."""
    sparsities = dict.fromkeys(f"{100 * job.config.end_sparsity:.4g} %" for job in pruned.jobs)
    lines = [configuration_text(pruned, [("pruned to", ", ".join(sparsities))])]
    jobs = (*dense.jobs, *pruned.jobs) if with_jobs else ()
    return "\n".join(lines + [f"  {job.name}: {job.folder}" for job in jobs])


def run_oneshot(dense: Plan, pruned: Plan, sweep: Callable[[Plan], int]) -> int:
    """Runs what is left of what `oneshot_plans` made, then writes table and plot.

    Args:
        dense: the dense runs.
        pruned: the runs that start from them.
        sweep: runs one plan and returns its exit status.

    Returns:
        The exit status of the first sweep in which a job failed, else 0.
    """
    for part in (dense, pruned):
        status = sweep(part) if part.jobs else 0
        if status:
            return status
    from gated_bert.experiments.oneshot_table import write_table

    write_table(pruned.output, [job.folder for job in pruned.jobs])
    return 0


def check_compressible(config: GatedBertConfig):
    """Raises UserError where a record's sparsity is not the share of its weights that goes."""
    if config.sparsity_per_dim:
        raise UserError("--compression: refused where a sparsity is meant for each of two dimensions; allowed: with "
                        "--sparsity-per-dim false, or --sparsities instead")  # fmt: skip


def model_sizes(config: GatedBertConfig) -> tuple[int, int]:
    """Parameters of a run's model, and how many of them are prunable."""
    from gated_bert.models.build import run_architecture
    from gated_bert.tasks.data import load_task_data
    from gated_bert.tasks.task import TASKS
    from gated_bert.tasks.tokenizer import load_tokenizer

    task = TASKS.get(config.task) or load_task_data(config).task
    architecture = run_architecture(config, task, load_tokenizer(config).vocab_size)
    weights = architecture.weight_counts()
    return architecture.num_parameters, sum(weights[role] for role in config.prunable_roles)


def _pruned_job(job: Job, point: Point, sparsity: float, plan: Plan, from_dense: bool) -> Job:
    config = job.config.replace(end_sparsity=sparsity)
    if from_dense:
        model = dense_folder(plan.output / DENSE, config) / "model"
        config = config.replace(pretrained=str(model.resolve()))
    several = len(plan.settings.seeds) > 1
    folder = plan.output / run_folder_name(config, several, (point.name,))
    return Job(f"{job.name} {point.name}", config, folder, job_command(folder))
