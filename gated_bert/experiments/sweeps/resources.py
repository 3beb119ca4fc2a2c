"""How many jobs fit on this machine, the share of it that each of them gets, and what a process takes."""

from __future__ import annotations

import collections
import os
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.config.distill_options import SELF
from gated_bert.config.parts import options_of, part_of
from gated_bert.support.errors import UserError
from gated_bert.support.machine import GIB, Machine, thread_environment

_FRAMEWORK_MEMORY = 1.2 * GIB
_BERT_VOCABULARY = 30522
_OF_WEIGHTS = (".keras", ".safetensors", ".bin", ".data-00000-of-00001")


def parameters(config: GatedBertConfig) -> int:
    """About how many parameters the model of `config` has: as many as its pretrained folder, else as its preset."""
    source = Path(config.pretrained) if config.pretrained else None
    if source is not None and source.is_dir():
        sizes: collections.Counter[tuple[Path, str]] = collections.Counter()
        for file in (*source.iterdir(), *source.glob("*/*")):
            # Of weights in several files all count, and of other forms of them none.
            if file.suffix in _OF_WEIGHTS and not file.parent.name.startswith("checkpoint-"):
                sizes[file.parent, file.suffix] += file.stat().st_size if file.is_file() else 0
        return max(sizes.values(), default=0) // 4
    layers, width, _, dff = config.sizes()
    return (
        width * ((config.vocab_size or _BERT_VOCABULARY) + 514) + layers * (4 * width**2 + 2 * width * dff) + width**2
    )


def job_memory(config: GatedBertConfig, on_gpu: bool) -> int:
    """About how many bytes of main memory one job takes.

    Weights, gradients, two optimiser moments and gates are held in float32, and what a step puts beside them (eight
    numbers a parameter), the criterion's scores, what it takes to make a mask, and a teacher that runs beside the
    model. A training step keeps for each token some sixteen numbers per hidden unit, four per FFN neuron, and three per
    head and other token.
    """
    per_token = sum(16 * width + 4 * dff + 3 * heads * config.max_len for width, heads, dff in _layers(config))
    activations = 0 if on_gpu else 4 * config.batch_size * config.max_len * per_token
    state = 8 + sum(score_numbers(config))
    passing = options_of(config).passing_bytes(parameters(config)) if config.criterion else 0
    numbers = state * parameters(config) + _teacher_numbers(config)
    return int(_FRAMEWORK_MEMORY + 4 * numbers + activations + passing)


def _layers(config: GatedBertConfig) -> list[tuple[int, int, int]]:
    """Hidden size, heads and neurons of each layer, as the pretrained folder has them, else the preset."""
    if config.pretrained and Path(config.pretrained).is_dir():
        try:
            from gated_bert.models.checkpoints import read_sizes

            found = read_sizes(config.pretrained)
        except (ImportError, UserError):
            # A plan is shown before anything is installed; what is wrong with the folder is said where it is read.
            pass
        else:
            return [(found.hidden_size, each.num_heads, each.intermediate_size)
                    for each in found.layers[: config.num_layers]]  # fmt: skip
    layers, width, heads, dff = config.sizes()
    return [(width, heads, dff)] * layers


def _teacher_numbers(config: GatedBertConfig) -> int:
    """Numbers of four bytes that a teacher keeps beside the model: one that was asked before has left."""
    if not config.distills_layers:
        return 0
    of = config if config.teacher == SELF else config.replace(pretrained=config.teacher)
    # Weights, gates, and what the libraries make of them.
    return 3 * parameters(of)


def score_numbers(config: GatedBertConfig) -> tuple[int, int]:
    """Numbers of four bytes that the criterion keeps for every weight beside its gate: those that a resume point holds
    too, and others."""
    return part_of(config).options.numbers_a_weight(config.pattern) if config.criterion else (0, 0)


def kept_disk(config: GatedBertConfig) -> int:
    """About how many bytes a finished job leaves: two models, with a gate for most of their weights."""
    return 2 * 4 * 2 * parameters(config)


def working_disk(config: GatedBertConfig) -> int:
    """About how many bytes more a running job writes: resume points with moments and scores, old and new."""
    return 2 * 4 * (4 + score_numbers(config)[0]) * parameters(config)


def parallel_limit(configs: list[GatedBertConfig], machine: Machine) -> tuple[int, str]:
    """How many of the jobs run at a time, and why so many.

    With GPUs as many for each job as it asks for; without, one job a core. Memory for the largest job has to be free in
    either case.
    """
    groups = len(machine.gpus) // max(devices_of(config, machine) for config in configs)
    need = max(job_memory(config, bool(machine.gpus)) for config in configs)
    limits = {
        "jobs": len(configs),
        "GPUs" if machine.gpus else "cores": max(1, groups) if machine.gpus else machine.cores,
        f"memory, about {need / GIB:.1f} GiB a job": max(1, int(machine.memory // need)),
    }
    reason = min(limits, key=limits.__getitem__)
    return limits[reason], f"limited by {reason}; {machine.describe()}"


def devices_of(config: GatedBertConfig, machine: Machine) -> int:
    """How many devices a job trains on; with `all`, the GPUs of the machine."""
    return config.device_count(max(1, len(machine.gpus)))


def share(machine: Machine, slots: int, slot: int, devices: int = 1) -> dict[str, str]:
    """The environment that keeps the job in `slot` of `slots` to its share of the threads and to `devices` GPUs."""
    found = thread_environment(max(1, machine.cores // slots))
    environment = {name: value for name, value in found.items() if name not in os.environ or name == "XLA_FLAGS"}
    if machine.gpus:
        places = [(slot * devices + place) % len(machine.gpus) for place in range(devices)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(machine.gpus[place] for place in places)
        if slots * devices > len(machine.gpus):
            environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return environment


