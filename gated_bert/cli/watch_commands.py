"""The command line of `gated-bert watch`."""

from __future__ import annotations

import os
import sys

from gated_bert.cli.common import typed_flags
from gated_bert.cli.positionals import split_words
from gated_bert.config.flag_table import LAUNCHER_FLAGS, Flag
from gated_bert.support.checks import FlagError
from gated_bert.support.environ import verbosity
from gated_bert.support.paths import user_path

_FLAGS = (
    Flag(("--web",), "web", "int", "show a page on this port of 127.0.0.1 instead; 0: a free one", "watch", "PORT",
         low=0, high=65535),
    LAUNCHER_FLAGS["output_mode"],
)  # fmt: skip


def watch_command(words: list[str]) -> int:
    """`gated-bert watch`: runs that other processes started, as they go on."""
    folders, words = split_words(words, _FLAGS)
    text = "Shows the runs in and below a folder until all have ended, wherever they run; changes nothing."
    typed = typed_flags("gated-bert watch FOLDER", text, _FLAGS, words, {"output_mode": "bars"})
    if len(folders) != 1:
        raise FlagError("watch: needs one folder of runs, e.g. gated-bert watch results")
    if {"web", "output_mode"} <= typed.keys():
        raise FlagError(f"{_FLAGS[1].label}: not together with {_FLAGS[0].label}")
    from gated_bert.experiments.sweeps.progress import Display
    from gated_bert.experiments.sweeps.watching import Watch, follow

    watch = Watch(user_path(folders[0]))
    try:
        if "web" in typed:
            from gated_bert.experiments.sweeps.watch_server import serve

            serve(watch, typed["web"])
        else:
            mode = typed.get("output_mode", "bars")
            follow(watch, Display(mode, sys.stdout.isatty(), max(1, verbosity(os.environ))))
    # That is how one stops looking.
    except KeyboardInterrupt:
        print()
    return 0
