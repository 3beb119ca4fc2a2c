"""A progress bar for commands that work through one list."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gated_bert.support.environ import verbosity


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[str, int], None]]:
    """Shows a bar on the standard error output, except with VERBOSE=0.

    Args:
        what: what is being done.
        total: steps in all.

    Yields:
        A function (title of the present step, steps done since the last call).
    """
    # Titles are names of files and models: no markup.
    title = TextColumn("{task.description}", markup=False)
    shown = (SpinnerColumn(), title, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Else what is printed meanwhile would go to the bar's stream, and not where the user sends it.
    redirect, disable = sys.stdout.isatty(), not verbosity(os.environ)
    with Progress(*shown, console=Console(stderr=True), redirect_stdout=redirect, disable=disable) as progress:
        bar = progress.add_task(what, total=total)

        def advance(title: str, steps: int):
            progress.update(bar, advance=steps, description=f"{what}: {title}" if title else what)

        yield advance
