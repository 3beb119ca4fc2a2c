"""Runs a command again and again and kills it, each time at another of its file operations, without tidying up.

`python kill_at.py FOLDER KILLS RESTART WORDS…`, in the working folder of the command. FOLDER is watched, KILLS is how
many of its operations are drawn, RESTART a word that is added after a kill, or nothing. Prints a line of JSON per kill.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
"""What Python tells its audit hooks of: `os.replace` is `os.rename`, `unlink` is `os.remove`."""
MODULES = ("runs.run", "explanations.explaining")


def is_file_operation(event: str, details: tuple, folder: str) -> bool:
    if event not in EVENTS or (event == "open" and not details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return False
    paths = (os.fsdecode(each) for each in details if isinstance(each, str | bytes | os.PathLike))
    return any(os.path.abspath(path).startswith(folder) for path in paths)


def command(words: list[str], folder: str, at: int | None = None) -> tuple[int, int]:
    """Runs it in a process of its own, and kills that before operation `at`; its status and its operations."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def watch(event, details):
            nonlocal count
            if is_file_operation(event, details, folder):
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        log = os.open(os.environ["KILL_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.addaudithook(watch)
        from gated_bert.cli.main import main

        code = main(words)
        os.write(tell, str(count).encode())
        sys.stdout.flush()
        os._exit(code)
    os.close(tell)
    _, status = os.waitpid(child, 0)
    count = int(os.read(told, 20) or 0)
    os.close(told)
    return os.waitstatus_to_exitcode(status), count


def names(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*")}


def set_aside(folder: str) -> set[str]:
    """The same of what was there before, where a command moved it out of its way."""
    places = (Path(folder).parent / "saved_results").glob(f"*/{Path(folder).name}")
    return set().union(*map(names, places))


def main(folder: str, kills: int, restart: str, words: list[str]):
    for name in MODULES:
        importlib.import_module(f"gated_bert.experiments.{name}")
    # A kill at the first writing and one into what is there already are different.
    here = os.getcwd()
    fresh, old = f"{folder}.fresh", f"{folder}.old"
    shutil.copytree(folder, fresh)
    code, first = command(words, folder)
    assert code == 0, code
    shutil.copytree(folder, old)
    code, again = command(words, folder)
    starts = [(fresh, first), (old, again)] if code == 0 else [(fresh, first)]
    print(json.dumps({"names": sorted(names(folder))}))
    draw = random.Random(time.time_ns() if os.environ.get("KILL_RANDOM") else 1)
    for start, count in starts:
        for at in sorted(draw.sample(range(count), min(kills, count))):
            shutil.rmtree(folder)
            shutil.rmtree(Path(folder).parent / "saved_results", ignore_errors=True)
            shutil.copytree(start, folder)
            os.chdir(here)
            code, _ = command(words, folder, at)
            left = names(folder)
            after, _ = command([*words, *restart.split()], folder)
            told = {"at": at, "of": count, "into": Path(start).suffix, "killed": code == -signal.SIGKILL, "code": after}
            found = {"left": left, "names": names(folder), "aside": set_aside(folder)}
            print(json.dumps(told | {name: sorted(each) for name, each in found.items()}), flush=True)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
