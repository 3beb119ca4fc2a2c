"""How many jobs fit, and what each of them gets."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.config.parts import CRITERIA
from gated_bert.experiments.sweeps import plan_cost, resources
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.experiments.sweeps.resources import (
    devices_of,
    job_memory,
    kept_disk,
    parallel_limit,
    parameters,
    share,
    working_disk,
)
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.criteria import criterion_class
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.support import machine
from gated_bert.support.errors import UserError
from gated_bert.support.machine import GIB, Machine

TINY = GatedBertConfig(model_size="tiny")
BASE = GatedBertConfig(model_size="base")


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 9), ("small", 28), ("base", 108), ("large", 333), ("bert-tiny", 4.4)]
)
def test_parameters_are_those_of_the_sizes(size, millions):
    assert parameters(GatedBertConfig(model_size=size)) / 1e6 == pytest.approx(millions, rel=0.05)


VARIANTS = [
    {"pruning_method": "baseline"}, *({"pruning_method": name} for name in CRITERIA),
    {"pruning_method": "taylor", "taylor_variant": "published"}, {"pruning_method": "spt", "spt_reward": "taylor"},
    {"pruning_method": "spt", "spt_unit": "neuron"}, {"pruning_method": "LayerSmoothGrad"},
]  # fmt: skip


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())))
def test_what_a_criterion_keeps_of_every_weight_is_reckoned_with(options):
    """Counted in a model: score variables, the optimiser's moments of them, their gradients, arrays of the class."""
    config, plain_config = (GatedBertConfig(model_size="tiny", **each) for each in (options, VARIANTS[0]))
    kind = criterion_class(config)
    rule = kind.gate_rule if kind else "fixed"
    model = BertClassifier(BertConfig.uniform(1, 32, 2, 64, vocab_size=20, num_outputs=2, gate_rule=rule))
    layers = model.gated_layers()
    weights = sum(layer.raw_kernel.shape[0] * layer.raw_kernel.shape[1] for layer in layers)
    score_rule = kind.score_rule if kind else "gradient"
    moments = build_optimizer(config, model, 10, score_rule).variables
    plain = BertClassifier(BertConfig.uniform(1, 32, 2, 64, vocab_size=20, num_outputs=2))
    extra = size_of(moments) - size_of(build_optimizer(config, plain, 10, "gradient").variables)
    saved, other = extra + size_of(layer.scores for layer in layers if layer.scores is not None), 0
    if rule != "fixed":
        other += size_of(layer.scores for layer in layers)
    if kind:
        prunable = model.gated_layers(config.prunable_roles)
        criterion = kind.from_config(config)
        criterion.bind(get_pattern(config).groups(prunable, [2]), config.seed)
        share = weights / sum(size_of([layer.raw_kernel]) for layer in prunable)
        saved += share * size_of(array for name, array in criterion.state().items() if "ridge" not in name)
        # What `prepare` leaves: a score a weight, and the weights as they were where they are updated; of units that
        # are scaled only a pass' gradients.
        other += weights * (criterion.needs_data + (criterion.updates_weights and not criterion.chooses))
    found = round(saved / weights), round(other / weights)
    assert found == resources.score_numbers(config)
    beside = [job_memory(each, False) for each in (config, plain_config)]
    # Beside them the 50 numbers of each row of a block that obert inverts, and gradients that wait, up to its limit.
    passing = 4 * (50 + 8) * parameters(config) if options["pruning_method"] == "obert" else 0
    assert beside[0] - beside[1] == pytest.approx(4 * sum(found) * parameters(config) + passing, abs=8)
    grown = working_disk(config) - working_disk(plain_config)
    assert grown == 2 * 4 * found[0] * parameters(config)


def test_what_a_step_takes_goes_by_the_layers_of_the_pretrained_folder(tmp_path):
    """One of 2 layers, 16 wide, instead of base's 12 of 768."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    others = {"model_type": "bert", "vocab_size": 20, "max_position_embeddings": 16, "type_vocab_size": 2}
    (tmp_path / "config.json").write_text(json.dumps(sizes | others))
    (tmp_path / "model.safetensors").write_bytes(bytes(20_000))

    def step(batch, **others):
        made = GatedBertConfig(pretrained=str(tmp_path), max_len=8, batch_size=batch, **others)
        return job_memory(made, on_gpu=False)

    a_token = 16 * 16 + 4 * 32 + 3 * 2 * 8
    assert step(1001) - step(1) == 4 * 1000 * 8 * 2 * a_token
    assert step(1001, num_layers=1) - step(1, num_layers=1) == 4 * 1000 * 8 * a_token


def size_of(arrays):
    return sum(int(np.prod(array.shape)) for array in arrays)


def test_the_scarcest_thing_limits_the_jobs():
    assert parallel_limit([TINY] * 4, Machine(2, 64 * GIB))[0] == 2
    assert parallel_limit([TINY] * 4, Machine(64, 64 * GIB))[0] == 4
    assert parallel_limit([TINY] * 8, Machine(64, 64 * GIB, ("0", "1")))[0] == 2
    slots, why = parallel_limit([TINY, BASE], Machine(64, int(1.5 * job_memory(BASE, False))))
    assert slots == 1 and "memory" in why
    assert parallel_limit([BASE], Machine(4, GIB))[0] == 1


def test_threads_and_gpus_are_shared(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    four = share(Machine(8, GIB), 2, 0)
    assert four["OMP_NUM_THREADS"] == four["TF_NUM_INTRAOP_THREADS"] == "4"
    assert "CUDA_VISIBLE_DEVICES" not in four and "XLA_FLAGS" not in four
    assert "multi_thread_eigen=false" in share(Machine(2, GIB), 4, 0)["XLA_FLAGS"]
    gpus = [share(Machine(8, GIB, ("0", "2")), 3, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert gpus == ["0", "2", "0"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" not in share(Machine(8, GIB), 2, 0)


def test_jobs_of_several_devices_share_the_gpus():
    four = Machine(8, 64 * GIB, ("0", "1", "2", "3"))
    pair = TINY.replace(devices=2)
    assert parallel_limit([pair] * 8, four)[0] == 2 and parallel_limit([TINY.replace(devices="all")] * 8, four)[0] == 1
    assert [share(four, 2, slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0,1", "2,3"]
    assert share(four, 1, 0, devices_of(TINY.replace(devices="all"), four))["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    growing = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert growing.items() <= share(four, 3, 2, 2).items()
    assert not growing.keys() & share(four, 2, 1, 2).keys()


def test_gpus_are_those_that_nvidia_smi_lists(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.this_machine().gpus == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert machine.this_machine().gpus == ("3",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.this_machine().gpus == ()


def test_a_full_disk_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_cost.shutil, "disk_usage", lambda path: type("Usage", (), {"free": GIB})())
    jobs = [Job("spt sst2", BASE, tmp_path, ())] * 4
    with pytest.raises(UserError, match=r"has 1.00 GiB of free space, and 4 job\(s\) need about"):
        plan_cost.check_room(tmp_path, jobs, 1)
    tiny = [Job("spt sst2", TINY, tmp_path, ())] * 4
    plan_cost.check_room(tmp_path, tiny, 1)
    # Only those that run hold a resume point.
    free = sum(kept_disk(TINY) for _ in tiny) + 2 * working_disk(TINY)
    monkeypatch.setattr(plan_cost.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free})())
    plan_cost.check_room(tmp_path, tiny, 2)
    with pytest.raises(UserError, match="free some"):
        plan_cost.check_room(tmp_path, tiny, 3)


def test_the_size_of_pretrained_weights_is_that_of_their_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(4000))
    assert resources.parameters(BASE.replace(pretrained=str(tmp_path))) == 1000
    (tmp_path / "several" / "0_Transformer").mkdir(parents=True)
    for part in range(3):
        (tmp_path / "several" / "0_Transformer" / f"{part}.safetensors").write_bytes(bytes(4000))
    assert resources.parameters(BASE.replace(pretrained=str(tmp_path / "several"))) == 3000
    assert resources.parameters(BASE.replace(pretrained="someone/bert")) == resources.parameters(BASE)


def test_peak_memory_is_that_of_the_process_alone():
    held = np.ones(500_000_000, dtype=np.uint8)
    program = "from gated_bert.support.machine import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5e6 < int(child.stdout) < 4e8 < machine.peak_memory()
    assert held[-1] == 1
