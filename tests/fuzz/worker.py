"""A warm process that runs command lines one after the other, within bounds, and tells how each ended.

Reads a JSON object a line from standard input (`cwd`, `words`); writes one a line to the descriptor that its argument
names (`status`, `out`, `err`).
"""

import json
import os
import resource
import sys
import traceback
from pathlib import Path

MEMORY = 6 * 2**30
"""Bytes of address space that a command may take beside what the libraries have."""
FILE_SIZE = 2**30


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from gated_bert.cli.main import main as command

    answers = os.fdopen(int(sys.argv[1]), "w")
    asked = os.fdopen(os.dup(0), "r")
    outputs = [os.open(name, os.O_RDWR | os.O_CREAT) for name in ("worker.out", "worker.err")]
    environment, first = dict(os.environ), True
    for line in asked:
        task = json.loads(line)
        os.chdir(task["cwd"])
        for target, file in enumerate(outputs, start=1):
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.dup2(file, target)
        try:
            status = command(task["words"])
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            status = "traceback"
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [os.pread(file, 100_000, 0).decode("utf-8", "replace") for file in outputs]
        answers.write(json.dumps({"status": status, "out": texts[0], "err": texts[1]}) + "\n")
        answers.flush()
        os.environ.clear()
        os.environ.update(environment)
        if first:
            first = False
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


if __name__ == "__main__":
    main()
