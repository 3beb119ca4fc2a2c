"""A sweep: all jobs of a plan, one after another or several at a time, then the comparison."""

from __future__ import annotations

import functools
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gated_bert.config.flag_table import LABELS
from gated_bert.config.tracker_names import check_trackers
from gated_bert.experiments.reports.next_steps import say_next_of_sweep
from gated_bert.experiments.reports.run_layout import CHECKPOINT, LOG_FILE
from gated_bert.experiments.runs.job_process import TOLD_TO_STOP
from gated_bert.experiments.runs.lifecycle import FAILED, FINISHED, STOPPED
from gated_bert.experiments.runs.output_folder import locked, note_set_aside, say_note, set_aside
from gated_bert.experiments.runs.run_state import is_finished, read_status
from gated_bert.experiments.runs.tracking import tracked_sweep
from gated_bert.experiments.sweeps.backends import Backend, LocalBackend, RunningJob
from gated_bert.experiments.sweeps.data_checks import check_data
from gated_bert.experiments.sweeps.jobs import Job, Plan, check_same_record, mark, write_job, write_sweep
from gated_bert.experiments.sweeps.overview import configuration_text, result_table
from gated_bert.experiments.sweeps.plan_cost import check_room
from gated_bert.experiments.sweeps.progress import Display, JobView, make_views, wait_a_moment
from gated_bert.experiments.sweeps.resources import parallel_limit
from gated_bert.support.checks import FlagError
from gated_bert.support.environ import verbosity
from gated_bert.support.errors import printable
from gated_bert.support.machine import Machine, this_machine
from gated_bert.support.partial import remove_leftovers_in
from gated_bert.support.quiet import log_tail

INTERRUPTED = 130
GRACE_SECONDS = 30.0
"""How long a job may take to end after it was asked to, before it is killed."""


def sweep(plan: Plan, compared: bool = True) -> int:
    """Runs the jobs of `plan` on this machine and compares them.

    Args:
        plan: the jobs.
        compared: false for jobs that are a part of something else, which shows its configuration and results itself.

    Returns:
        The exit status: 0 all finished, 1 some failed, 130 interrupted.

    Raises:
        FlagError: more devices than there are.
        ConfigError: a tracker that is not installed.
        UserError: the output folder or the data cannot be used.
    """
    launcher, silent = plan.settings.launcher, verbosity(os.environ) == 0
    machine, trackers = this_machine(), trackers_of(plan.jobs)
    if launcher.backend != "ray":
        _check_devices(plan, machine)
    slots, why = _slots(plan, machine)
    if compared and not silent:
        print(configuration_text(plan, [("jobs", why)]), flush=True)
    # In the middle of something else nobody may be there to answer.
    mode = _output_mode(launcher.output_mode, asks=compared and not silent)
    with locked(plan.output):
        skipped, resumed = earlier_runs(plan, launcher.resume)
        left = [job for job in plan.jobs if job not in skipped]
        if left:
            for note in check_data(left):
                say_note(note)
        views = make_views(plan.jobs, skipped)
        display = Display(mode, sys.stdout.isatty(), verbosity(os.environ))
        with ExitStack() as stack:
            with _backend(plan, left, machine, slots) as backend:
                if left:
                    check_room(plan.output, left, backend.slots)
                write_sweep(plan)
                followed = tracked_sweep(trackers if left else (), plan.output, launcher.resume)
                tracking = stack.enter_context(followed)
                interrupted = run_jobs(views, backend, display, resumed)
            status = _finish(plan, views, interrupted, compared)
            tables = [path for path in sorted(plan.output.iterdir()) if path.suffix in (".csv", ".png", ".html")]
            tracking.end({0: FINISHED, INTERRUPTED: STOPPED}.get(status, FAILED), tables)
        return status


def trackers_of(jobs: Sequence[Job]) -> tuple[str, ...]:
    """The trackers that follow any of the jobs.

    Raises:
        ConfigError: one of them is not installed.
    """
    names = tuple(dict.fromkeys(name for job in jobs for name in job.config.track))
    check_trackers(names)
    return names


@contextmanager
def _backend(plan: Plan, left: Sequence[Job], machine: Machine, slots: int) -> Iterator[Backend]:
    launcher = plan.settings.launcher
    if launcher.backend != "ray" or not left:
        yield LocalBackend(machine, slots)
        return
    from gated_bert.experiments.sweeps.ray_backend import connected

    with connected(launcher.ray_address, plan.output, [job.asked for job in left], slots) as backend:
        yield backend


def _check_devices(plan: Plan, machine: Machine):
    for devices in {each for each in (job.config.devices for job in plan.jobs) if isinstance(each, int)}:
        # Without GPUs the framework says what it divides the processor into, and refuses.
        if machine.gpus and devices > len(machine.gpus):
            allowed = f"1 to {len(machine.gpus)} (the GPUs of this machine), or all"
            raise FlagError.refused(LABELS["devices"], devices, allowed)


def _slots(plan: Plan, machine: Machine) -> tuple[int, str]:
    launcher, count = plan.settings.launcher, len(plan.jobs)
    wanted = launcher.max_parallel_jobs
    if launcher.backend == "ray":
        most = "" if wanted is None else f", up to {wanted}"
        place = launcher.ray_address or "on this machine"
        return wanted or count, f"{count}, as many at a time as the Ray cluster ({place}) has room for{most}"
    if wanted is not None:
        slots = min(wanted, count)
        return slots, f"{count}, up to {slots} at a time (-max-parallel-jobs {wanted})"
    if not launcher.parallel:
        return 1, f"{count}, one after another"
    slots, reason = parallel_limit([job.asked for job in plan.jobs], machine)
    return slots, f"{count}, up to {slots} at a time ({reason})"


def _output_mode(chosen: str | None, asks: bool) -> str:
    if chosen or not (asks and sys.stdin.isatty() and sys.stdout.isatty()):
        return chosen or "bars"
    return _asked_mode()


@functools.cache
def _asked_mode() -> str:
    """What the user wants to see, asked once: a study and pruning in stages are many sweeps."""
    while True:
        try:
            answer = input("Show progress as bars, logs or both? [bars] ").strip().lower() or "bars"
        except EOFError:
            return "bars"
        if answer in ("bars", "logs", "both"):
            return answer


def earlier_runs(plan: Plan, resume: bool) -> tuple[set[Job], set[Job]]:
    """The jobs that are finished already and those to go on with; without `resume` earlier runs are set aside."""
    if resume:
        there = [job for job in plan.jobs if job.folder.exists()]
        for job in there:
            check_same_record(job)
        finished = {job for job in there if is_finished(job.folder)}
        for job in there:
            remove_leftovers_in(job.folder)
        for job in finished:
            # Killed between the two: finished, and not tidied up.
            (job.folder / CHECKPOINT).unlink(missing_ok=True)
        return finished, set(there) - finished
    place = set_aside(plan.output, [job.folder for job in plan.jobs])
    note_set_aside(f"earlier runs in {plan.output}", place)
    return set(), set()


@dataclass
class _Active:
    view: JobView
    handle: RunningJob
    started: float


class StopRequest:
    """Counts the signals that ask a launcher to stop."""

    def __init__(self):
        self.count = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Counts Ctrl-C and `TOLD_TO_STOP`: an exception raised just anywhere could lose a job that has started."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, *TOLD_TO_STOP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number, frame):
        self.count += 1


def run_jobs(views: Sequence[JobView], backend: Backend, display: Display, resumed: set[Job]) -> bool:
    """Runs every waiting job, at most `backend.slots` at a time; a failed one does not stop the others.

    Args:
        views: the jobs; their states are kept up to date.
        backend: where they run.
        display: what shows them.
        resumed: the jobs that go on from an earlier start.

    Returns:
        Whether it was interrupted.
    """
    waiting = [view for view in views if view.state == "waiting"]
    by_folder = {view.job.folder: view for view in views}
    active: dict[int, _Active] = {}
    request = StopRequest()
    with request.listening():
        display.start(views)
        try:
            while (waiting or active) and not request.count:
                _fail_without_teacher(waiting, by_folder)
                _start_waiting(waiting, by_folder, active, backend, resumed)
                _look(active)
                display.update(views)
                wait_a_moment()
        finally:

            def look():
                _look(active, stopping=True)
                display.update(views)

            stop_all(lambda: [entry.handle for entry in active.values()], request, look)
            display.update(views)
            display.stop()
    return bool(request.count)


def _start_waiting(
    waiting: list[JobView], by_folder: Mapping[Path, JobView], active: dict[int, _Active], backend: Backend,
    resumed: set[Job],
):  # fmt: skip
    for slot in range(backend.slots):
        ready = (each for each in waiting if _has_teacher(each, by_folder))
        view = None if slot in active else next(ready, None)
        if view is not None:
            waiting.remove(view)
            write_job(view.job)
            mark(view.job, "starting", "")
            view.state = "starting"
            active[slot] = _Active(view, backend.start(view.job, slot, view.job in resumed), time.monotonic())


def _has_teacher(view: JobView, by_folder: Mapping[Path, JobView]) -> bool:
    """Whether the job that this one learns from, if any, is finished."""
    return view.job.after is None or by_folder[view.job.after.folder].state in ("finished", "skipped")


def _fail_without_teacher(waiting: list[JobView], by_folder: Mapping[Path, JobView]):
    """Ends the jobs that would learn from one that failed."""
    for view in list(waiting):
        teacher = view.job.after and by_folder[view.job.after.folder]
        if teacher and teacher.state in ("failed", "stopped"):
            waiting.remove(view)
            view.state = "failed"
            write_job(view.job)
            mark(view.job, "failed", f"its teacher, {teacher.job.name}, {teacher.state}")


def _look(active: dict[int, _Active], stopping: bool = False):
    for slot, entry in list(active.items()):
        view, code = entry.view, entry.handle.poll()
        view.seconds = time.monotonic() - entry.started
        view.status = read_status(view.job.folder)
        if code is not None:
            del active[slot]
            _end(view, code, stopping)
        elif view.status.get("state") == "running":
            view.state = "running"


def _end(view: JobView, code: int, stopping: bool):
    if code == 0:
        view.state = "finished"
    elif stopping or code == INTERRUPTED:
        view.state = "stopped"
    else:
        view.state = "failed"
    if view.status.get("state") != view.state:
        mark(view.job, view.state, reason(code))


def reason(code: int) -> str:
    """Why a process ended, by its exit status; nothing of 0."""
    if code >= 0:
        return f"exit status {code}" if code else ""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def stop_all(
    running: Callable[[], Sequence[RunningJob]], request: StopRequest, look: Callable[[], object],
    grace: float = GRACE_SECONDS,
) -> None:  # fmt: skip
    """Asks what runs to end, waits, and kills what is left; a second Ctrl-C kills at once.

    Args:
        running: says what has not ended as far as `look` has seen: jobs, or other processes that start as these do.
        request: what counts the signals.
        look: looks whether they have ended; an end is told once.
        grace: seconds until they are killed.
    """
    for process in running():
        process.stop()
    deadline, seen = time.monotonic() + grace, request.count
    while running():
        look()
        if time.monotonic() > deadline or request.count > seen:
            for process in running():
                process.kill()
        wait_a_moment()


def _finish(plan: Plan, views: Sequence[JobView], interrupted: bool, compared: bool) -> int:
    failed = [view for view in views if view.state == "failed"]
    finished = [view for view in views if view.state in ("finished", "skipped")]
    print("\n" + result_table([(view.job, view.state, view.seconds) for view in views]))
    for view in views:
        if view.status.get("note"):
            print(f"note: {view.job.name}: {view.status['note']}")
    for view in failed:
        folder = view.job.folder
        why = printable(str(read_status(folder).get("message")))
        if not (folder / LOG_FILE).exists():
            print(f"\n{view.job.name} was not started: {why}")
            continue
        print(f"\n{view.job.name} failed ({why}); the end of {folder / LOG_FILE}:")
        print(textwrap.indent(log_tail(folder / LOG_FILE), "  "))
    if interrupted:
        print("\nstopped; the same command with --resume goes on")
        return INTERRUPTED
    if compared:
        files = compare_jobs(plan.output, [*finished, *failed])
        print(f"\nresults in {plan.output}: {', '.join(path.name for path in files)}, and a folder for each job")
        say_next_of_sweep(plan.output, [(view.job.folder, view.job.config) for view in finished])
    if failed:
        print(f"{len(failed)} of {len(views)} jobs failed; the same command with --resume tries these again")
    return 1 if failed else 0


def compare_jobs(output: Path, ended: Sequence[JobView]) -> list[Path]:
    """Writes the comparison of the jobs that ended, and the report that also names the failed ones.

    Returns:
        The files written.
    """
    from gated_bert.experiments.reports.compare import compare

    def say(line: str):
        if line.startswith(("note:", "left out:")):
            print(line)

    return compare([view.job.folder for view in ended], output, say)
