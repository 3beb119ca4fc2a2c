"""What this machine has: cores, memory, GPUs; and what a process takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What there is to share: cores, free memory in bytes, ids of the GPUs."""

    cores: int
    memory: int
    gpus: tuple[str, ...] = ()

    def describe(self) -> str:
        """One phrase: `2 cores, 22.9 GiB of free memory, no GPU`."""
        gpus = "no GPU" if not self.gpus else f"{len(self.gpus)} GPU{'s' * (len(self.gpus) > 1)}"
        return f"{self.cores} core{'s' * (self.cores > 1)}, {self.memory / GIB:.1f} GiB of free memory, {gpus}"


def this_machine() -> Machine:
    """The cores, the memory and the GPUs that this process may use."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(min(cores, _quota() or cores), min(psutil.virtual_memory().available, _memory_limit()), gpu_ids())


def peak_memory() -> int:
    """The most bytes of main memory that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its peak begins with that of the process which started this one.
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    if os.name == "nt":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _quota() -> int | None:
    """Whole cores of a container's quota (control groups v2), if it has one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, round(int(quota) / int(period)))


def _memory_limit() -> int | float:
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if limit == "max" else max(0, int(limit) - used)


def gpu_ids() -> tuple[str, ...]:
    """The ids of the GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(gpu for gpu in chosen.split(",") if gpu and gpu != "-1")
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip().isdecimal())


def has_bfloat16() -> bool:
    """Whether the processor multiplies matrices of bfloat16 (AVX512-BF16 or AMX), as Linux says; elsewhere False."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return False
    return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())


def thread_environment(threads: int) -> dict[str, str]:
    """The environment that keeps a process to so many threads, where the libraries have not started yet."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS",
             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "PJRT_NPROC")  # fmt: skip
    environment = dict.fromkeys(names, str(threads))
    if threads == 1:
        # XLA's own matrix products ignore the counts above; this alone keeps them in the calling thread.
        flags = os.environ.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return environment
