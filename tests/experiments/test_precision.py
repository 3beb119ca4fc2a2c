"""`--precision auto`: what it is on a machine, that the run records it, and that `--resume` keeps to it."""

from __future__ import annotations

import keras
import pytest

from gated_bert.cli.sweep_commands import read_plan
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs.devices import as_on_this_machine
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.sweeps.overview import configuration_text
from gated_bert.support import backend, machine

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="under XLA float32 is faster")
AUTO = GatedBertConfig(model_size="tiny", pruning_method="baseline", precision="auto", epochs=1, data="embedded",
                       train_examples=64, max_len=16, batch_size=32, num_layers=1)  # fmt: skip


@pytest.fixture(params=[True, False], ids=["bfloat16", "none"])
def processor(request, monkeypatch) -> bool:
    monkeypatch.setattr(backend, "has_bfloat16", lambda: request.param)
    monkeypatch.setattr("gated_bert.experiments.sweeps.overview.has_bfloat16", lambda: request.param)
    return request.param


@pytest.mark.parametrize(
    ("flags", "found"),
    [("fma avx512_bf16", True), ("avx512f amx_bf16 amx_tile", True), ("avx512f avx512_bf16x", False), ("", False)],
)
def test_what_linux_says_of_the_processor(monkeypatch, flags, found):
    text = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1 avx512_bf16\n"
    monkeypatch.setattr(machine.Path, "read_text", lambda self: text)
    assert machine.has_bfloat16() is found


def test_elsewhere_nothing_says_it(monkeypatch):
    def missing(self):
        raise FileNotFoundError(self)

    monkeypatch.setattr(machine.Path, "read_text", missing)
    assert machine.has_bfloat16() is False


@ON_TENSORFLOW
def test_auto_is_the_precision_that_the_processor_is_fast_in(processor):
    expected = "mixed_bfloat16" if processor else "float32"
    assert as_on_this_machine(AUTO).precision == expected
    assert as_on_this_machine(AUTO.replace(jit_compile=True)).precision == "float32"
    assert as_on_this_machine(AUTO.replace(precision="mixed_float16")).precision == "mixed_float16"
    assert as_on_this_machine(AUTO, {"precision": "float32"}).precision == "float32"


@ON_TENSORFLOW
def test_a_run_records_what_it_was_and_resume_keeps_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "has_bfloat16", lambda: True)
    train(AUTO, tmp_path / "run")
    assert read_run(tmp_path / "run").metadata["config"]["precision"] == "mixed_bfloat16"
    monkeypatch.setattr(backend, "has_bfloat16", lambda: False)
    kept = train(AUTO, tmp_path / "run", resume=True)
    assert read_run(kept.folder).metadata["config"]["precision"] == "mixed_bfloat16"


def shown(**typed) -> str:
    return configuration_text(read_plan({"data": "embedded", **typed}, {}, {}))


def test_the_launcher_says_what_would_be_faster(processor, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ("--precision auto is faster" in shown()) is processor
    for chosen in ({"precision": "mixed_bfloat16"}, {"jit_compile": True}, {"backend": "ray"}):
        assert "is faster" not in shown(**chosen)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "is faster" not in shown()
