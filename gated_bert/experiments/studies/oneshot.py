"""One-shot pruning: dense models, each pruned at once by every strategy to every sparsity, then fine-tuned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gated_bert.config import GatedBertConfig
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.sweeps.jobs import (
    Job,
    Plan,
    dense_folder,
    dense_plan,
    job_command,
    refuse_shared_folders,
    run_folder_name,
)
from gated_bert.experiments.sweeps.overview import configuration_text
from gated_bert.support.errors import UserError
from gated_bert.support.paths import number_name

PRUNABLE_ROLES = (*ENCODER_ROLES, "pooler")
"""What ShrinkBench's strategies prune of a BERT: every matrix but the classifier's."""
DENSE = "dense"


@dataclass(frozen=True)
class Point:
    """How much is pruned, said in one of two ways.

    Args:
        compression: parameters ÷ parameters left.
        sparsity: where that is None, fraction removed of the matrices that the pattern is made of.
        compression_of: what `compression` counts: `all` parameters, or the `prunable` weights alone.
    """

    compression: float | None = None
    sparsity: float = 0.0
    compression_of: str = "all"

    @property
    def name(self) -> str:
        """For folders and messages: `compression3.5`, `sparsity91.4`."""
        if self.compression is not None:
            return f"compression{number_name(self.compression)}"
        return f"sparsity{number_name(100 * self.sparsity)}"

    def sparsity_in(
        self, parameters: int, prunable: int, own: int | None = None, per_dimension: bool = False
    ) -> float:
        """The end sparsity of a run that prunes to this point.

        Args:
            parameters: of the model.
            prunable: how many of them are weights that can be pruned.
            own: how many of these are in the matrices that the pattern is made of; by default all.
            per_dimension: whether a run's end sparsity is that of each of two steps.

        Raises:
            UserError: no sparsity gives the compression.
        """
        if self.compression is None:
            return self.sparsity
        counted = parameters if self.compression_of == "all" else prunable
        own = prunable if own is None else own
        kept = (counted / self.compression - (counted - own)) / own
        if not 0 < kept <= 1:
            largest = math.floor(100 * counted / (counted - own)) / 100 if counted > own else math.inf
            raise UserError(
                f"--compression: {self.compression:g} is refused; allowed: 1 to {largest:g}, since {own:,} of "
                f"{counted:,} parameters can be pruned"
            )
        return 1 - (math.sqrt(kept) if per_dimension else kept)


def oneshot_plans(
    plan: Plan, points: Sequence[Point], dense_epochs: int, tuned: bool = True
) -> tuple[Plan, Plan]:
    """The dense runs, none where nothing is trained before, and the runs that are pruned to each of `points`.

    Args:
        plan: one job per strategy, task and seed; its epochs are those of the fine-tuning.
        points: how much each strategy prunes.
        dense_epochs: epochs of dense training; 0 prunes the `pretrained` weights as they are.
        tuned: whether what is pruned is fine-tuned; else it has no epochs.

    Raises:
        UserError: a compression that no sparsity gives, or two points whose runs would share a folder.
    """
    dense = dense_plan(plan, plan.output / DENSE, epochs=dense_epochs or 1)
    # Not looked up where no point asks.
    asked = any(point.compression is not None for point in points)
    sizes = {job.config.task: model_sizes(job.config) if asked else (0, 0, 0) for job in dense.jobs}
    jobs = [_pruned_job(job, point, sizes[job.config.task], plan, dense_epochs > 0, tuned)
            for job in plan.jobs for point in points]  # fmt: skip
    refuse_shared_folders(jobs)
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
    from gated_bert.experiments.studies.oneshot_table import write_table

    write_table(pruned.output, [job.folder for job in pruned.jobs])
    return 0


def model_sizes(config: GatedBertConfig) -> tuple[int, int, int]:
    """Parameters of a run's model, how many of them are prunable, and how many in the matrices of its pattern."""
    from gated_bert.models.build import run_architecture
    from gated_bert.models.run_family import run_tokenizer
    from gated_bert.pruning.named_patterns import get_pattern
    from gated_bert.tasks.data import load_task_data
    from gated_bert.tasks.task import TASKS

    task = TASKS.get(config.task) or load_task_data(config).task
    architecture = run_architecture(config, task, run_tokenizer(config).vocab_size)
    roles = get_pattern(config).roles()
    weights = {role: count for role, count in architecture.weight_counts().items() if role in config.prunable_roles}
    own = sum(count for role, count in weights.items() if roles is None or role in roles)
    return architecture.num_parameters, sum(weights.values()), own


def _pruned_job(
    job: Job, point: Point, sizes: tuple[int, int, int], plan: Plan, from_dense: bool, tuned: bool
) -> Job:
    sparsity = point.sparsity_in(*sizes, per_dimension=job.config.sparsity_per_dim)
    config = job.config.replace(end_sparsity=sparsity)
    if from_dense:
        model = dense_folder(plan.output / DENSE, config) / MODEL
        config = config.replace(pretrained=str(model.resolve()), epochs=config.epochs if tuned else 0)
    several = len(plan.settings.seeds) > 1
    folder = plan.output / run_folder_name(config, several, (point.name,))
    return Job(f"{job.name} {point.name}", config, folder, job_command(folder))
