"""`gated-bert predict`, `inspect` and `benchmark`, as a user types them."""

import csv
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.compression.predicted_rows import PredictedRows
from gated_bert.experiments.models import memory_probe, predictions
from gated_bert.experiments.models import model_benchmark as benchmark
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import LoadedModel, load_model, save_model
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import randomize
from tests.pictures import is_drawn
from tests.refused import refusal

FULL_SCALE = True

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
TEXTS = ["good film", "bad", "good good bad bad films good", "film", "bad films good"]
QUICK = ("--batches", "1,2", "--lengths", "8", "--repeats", "2")


def saved_model(place, task="sst2", closed=True):
    config = BertConfig.uniform(2, 16, 4, 12, vocab_size=40, max_position=16, num_outputs=TASKS[task].num_outputs)
    model = BertClassifier(config)
    randomize(model, 0)
    if closed:
        model.encoder.blocks[0].ffn.intermediate.gates.assign(np.repeat([[0, 1, 1]], 16, axis=0).repeat(4, axis=1))
    metadata = {"config": {"max_len": 12}}
    save_model(place, model, Tokenizer.from_vocab(TOKENS), TASKS[task], metadata)
    return LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS[task], config, metadata)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model in `pruned`, and, where ONNX is installed, its export in `pruned.onnx`."""
    place = tmp_path_factory.mktemp("saved")
    loaded = saved_model(place / "pruned")
    try:
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError:
        return place
    from gated_bert.compression.onnx_export import export_onnx

    export_onnx(place / "pruned.onnx", loaded)
    return place


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """The working directory, with what is in `saved`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    # What a command sets for the libraries it is about to start, in a process where they run already.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def models(folder):
    return [name for name in ("pruned", "pruned.onnx") if (folder / name).exists()]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predict_writes_rows_and_metrics_of_either_kind_of_model(folder, capsys, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK_ROWS", 2)
    labels = [1, 0, 1, 1, 0]
    lines = [f"{text}\t{label}\n" for text, label in zip(TEXTS, labels, strict=True)]
    Path("a.tsv.gz").write_bytes(gzip.compress(("sentence\tlabel\n" + "".join(lines)).encode()))
    for name in models(folder):
        assert main(["predict", name, "a.tsv.gz", "-o", "out/a.csv", "--monitor"]) == 0
        assert "wrote out/a.csv" in capsys.readouterr().out
        rows, record = read("out/a.csv"), json.loads(Path("out/a_metrics.json").read_text())
        assert [row["row"] for row in rows] == ["1", "2", "3", "4", "5"]
        assert [row["label"] for row in rows] == [TASKS["sst2"].labels[label] for label in labels]
        shares = np.array([[row["probability_negative"], row["probability_positive"]] for row in rows], float)
        assert np.abs(shares.sum(axis=1) - 1).max() < 1e-5
        assert [row["prediction"] for row in rows] == [TASKS["sst2"].labels[best] for best in shares.argmax(axis=1)]
        assert record["correct"] == sum(row["prediction"] == row["label"] for row in rows) == 5 * record["accuracy"]
        assert record["instances"] == 5 and record["max_len"] == 12
        assert record["total_seconds"] >= record["tokenize_seconds"] + record["model_seconds"] > 0
        assert record["seconds_per_instance"] == record["total_seconds"] / 5
        assert [row["event"] for row in read("out/a_resources.csv") if row["event"] != "interval"] == [
            "start", "predict", "end"
        ]  # fmt: skip
        assert is_drawn("out/a_resources.png")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "a.csv", "a_metrics.json", "a_resources.csv", "a_resources.png"
    ]  # fmt: skip


def test_both_kinds_of_model_predict_the_same(folder):
    pytest.importorskip("onnxruntime")
    Path("a.txt").write_text("\n".join(TEXTS))
    for name in ("pruned", "pruned.onnx"):
        assert main(["predict", name, "a.txt", "-o", f"{name}.csv"]) == 0
    one, other = read("pruned.csv"), read("pruned.onnx.csv")
    assert len(one) == 5 and list(one[0]) == ["row", "prediction", "probability_negative", "probability_positive"]
    for row, same in zip(one, other, strict=True):
        assert row["prediction"] == same["prediction"]
        assert abs(float(row["probability_positive"]) - float(same["probability_positive"])) < 2e-5
    assert "accuracy" not in json.loads(Path("pruned_metrics.json").read_text())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.tsv",
            "sentence\tlabel\ngood\t1\nbad\tgreat\n",
            "a.tsv, line 3: unknown label 'great' in column 'label'; al",
        ),
        ("a.csv", 'text\ngood\n" "\n', "a.csv, line 3: empty text in column 'text'"),
        ("a.txt", "good\n\n", "a.txt, line 2: empty text in column 'text'"),
        ("a.txt", "", "a.txt: no examples in it"),
        ("a.jsonl", "", "a.jsonl: no examples in it"),
        (
            "a.csv",
            "review\ngood\n",
            "a.csv: no column sentence or text, as SST-2 needs; found: review; name yours with",
        ),
        ("a.xlsx", "x", "a.xlsx: not a .tsv, .csv, .jsonl, .conll or .txt file"),
        ("a.tsv", "sentence\nok\nno\tgood\n", "a.tsv, line 3: 2 columns instead of 1"),
    ],
)
def test_predict_refuses_a_file_before_it_writes(folder, capsys, monkeypatch, name, content, message):
    monkeypatch.setattr(predictions, "CHUNK_ROWS", 1)
    Path(name).write_text(content)
    before = sorted(folder.rglob("*"))
    assert message in refusal(capsys, "predict", "pruned", name, "-o", "out.csv", "--monitor")
    assert sorted(folder.rglob("*")) == before


def test_predict_names_what_is_wrong_on_its_command_line(folder, capsys):
    Path("a.txt").write_text("good\n")
    assert "predict: needs a model and a file of texts" in refusal(capsys, "predict", "pruned")
    assert "nowhere: no such file or folder; give a model folder or an" in refusal(
        capsys, "predict", "nowhere", "a.txt"
    )
    assert "a.txt: no model; give a model folder" in refusal(capsys, "predict", "a.txt", "a.txt")
    assert "none.txt: no such file" in refusal(capsys, "predict", "pruned", "none.txt")
    assert "-o/--output: 'out' is refused; allowed: a .csv file" in refusal(
        capsys, "predict", "pruned", "a.txt", "-o", "out"
    )
    assert "-b/--batch-size: 0 is refused" in refusal(capsys, "predict", "pruned", "a.txt", "-b", "0")
    assert "-ml/--max-len: 99 is refused; allowed: 8 to 16" in refusal(
        capsys, "predict", "pruned", "a.txt", "-ml", "99"
    )
    assert "no column 'x', named with --text-column" in refusal(
        capsys, "predict", "pruned", "a.txt", "--text-column", "x"
    )


def test_a_stopped_prediction_leaves_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK_ROWS", 2)
    Path("a.txt").write_text("\n".join(TEXTS))
    written = PredictedRows.rows

    def stop(self, part, first):
        if first > 2:
            raise KeyboardInterrupt
        return written(self, part, first)

    monkeypatch.setattr(PredictedRows, "rows", stop)
    assert main(["predict", "pruned", "a.txt", "-o", "out/a.csv"]) == 130
    assert capsys.readouterr().err.endswith("stopped; no predictions were written\n")
    assert list(Path("out").iterdir()) == []


def test_inspect_shows_a_folder_and_writes_it(folder, capsys):
    assert main(["inspect", "pruned", "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert "SST-2, 2 layers, hidden size 16" in shown and "12 → 8" in shown and "model.keras, gzipped" in shown
    rows = {(row["layer"], row["role"]): row for row in read("out/matrices.csv")}
    assert rows["0", "ffn_intermediate"]["nonzero"] == "128" and rows["", "pooler"]["parameters"] == "256"
    assert [row["neurons_left"] for row in read("out/layers.csv")] == ["8", "12"]
    assert Path("out/masks.png").read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", "pruned"]) == 0 and sorted(path.name for path in Path("out").iterdir()) == [
        "layers.csv", "masks.png", "matrices.csv"
    ]  # fmt: skip


def test_inspect_shows_an_onnx_file_also_without_its_record(folder, capsys):
    pytest.importorskip("onnxruntime")
    assert main(["inspect", "pruned.onnx", "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert "SST-2, standard graph, fp32" in shown and "[batch, length]" in shown and "opset: ai.onnx" in shown
    operators = {row["operator"]: int(row["count"]) for row in read("out/operators.csv")}
    assert operators["Softmax"] == 2 and operators["Erf"] == 2
    stored = read("out/initializers.csv")
    assert sum(int(row["bytes"]) for row in stored) <= Path("pruned.onnx").stat().st_size
    Path("pruned.json").unlink()
    assert main(["inspect", "pruned.onnx"]) == 0
    assert "without a record of this tool" in capsys.readouterr().out
    Path("broken.onnx").write_bytes(Path("pruned.onnx").read_bytes()[:99])
    Path("empty.onnx").write_bytes(b"")
    assert "broken.onnx: not a whole ONNX file" in refusal(capsys, "inspect", "broken.onnx")
    assert "empty.onnx: no operator in it" in refusal(capsys, "inspect", "empty.onnx")
    assert "inspect: needs one model" in refusal(capsys, "inspect")


def test_benchmark_compares_models(folder, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "measure_peak_memory", lambda source, *sizes: 2_000_000)
    names = models(folder)
    assert main(["benchmark", *names, "-o", "out", "-d", "embedded", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "embedded data, dev" in shown and "batch 2 × 8" in shown and "1 thread(s), 2 predictions each" in shown
    rows, record = read("out/benchmark.csv"), json.loads(Path("out/benchmark.json").read_text())
    assert [row["model"] for row in rows] == names and record["complete"] and record["threads"] == 1
    loaded = load_model("pruned")
    for row in rows:
        assert int(row["parameters"]) == loaded.config.num_parameters
        assert int(row["nonzero_parameters"]) == int(row["parameters"]) - 64
        assert row["value"] == rows[0]["value"] and row["metric"] == "accuracy" and int(row["instances"]) > 100
        assert 0 < float(row["p50_ms_b2_l8"]) <= float(row["p95_ms_b2_l8"])
        ratio = float(row["p50_ms_b1_l8"]) / float(rows[0]["p50_ms_b1_l8"])
        assert float(row["p50_ms_b1_l8_ratio"]) == pytest.approx(ratio)
        assert float(row["peak_memory_bytes_ratio"]) == 1
    assert int(rows[0]["size_bytes"]) == Path("pruned/model.keras").stat().st_size
    # A gzip file of the same content, its header of no name included, is as long to within its own few bytes.
    packed = len(gzip.compress(Path("pruned/model.keras").read_bytes(), 6))
    assert abs(int(rows[0]["gzip_bytes"]) - packed) < 20
    assert Path("out/benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_a_stopped_benchmark_keeps_what_was_measured(folder, capsys, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "measure_peak_memory", stop)
    assert main(["benchmark", "pruned", "-o", "out", *QUICK]) == 130
    assert capsys.readouterr().err.endswith("stopped; what was measured is in out\n")
    assert float(read("out/benchmark.csv")[0]["p50_ms_b2_l8"]) > 0
    assert json.loads(Path("out/benchmark.json").read_text())["complete"] is False


def test_benchmark_refuses_what_cannot_be_compared(folder, capsys):
    saved_model(folder / "other", "stsb", closed=False)
    assert "at least one model is needed" in refusal(capsys, "benchmark")
    assert "nowhere: no such file or folder" in refusal(capsys, "benchmark", "pruned", "nowhere")
    assert "the same model twice" in refusal(capsys, "benchmark", "pruned", "./pruned")
    assert "--batches: '1,0' is refused; allowed: whole numbers" in refusal(
        capsys, "benchmark", "pruned", "--batches", "1,0"
    )
    for number in (str(2**31), "9" * 12, "9" * 5000):
        assert "allowed: whole numbers from 1 to 2147483647" in refusal(
            capsys, "benchmark", "pruned", "--batches", f"1,{number}"
        )
        message = refusal(capsys, "benchmark", "pruned", "--repeats", number)
        assert "--repeats: " in message and "allowed: a whole number from 1 to 2147483647" in message
    assert "--threads: 'x' is refused" in refusal(capsys, "benchmark", "pruned", "--threads", "x")
    assert "--lengths: 17 is refused; allowed: 1 to 16" in refusal(capsys, "benchmark", "pruned", "--lengths", "8,17")
    assert "-d/--data: 'nowhere' is refused" in refusal(capsys, "benchmark", "pruned", "-d", "nowhere")
    assert "--split: only with -d" in refusal(capsys, "benchmark", "pruned", "--split", "dev")
    quick = ("-d", "embedded", *QUICK)
    message = refusal(capsys, "benchmark", "pruned", "other", *quick)
    assert "pruned is of task sst2 (negative, positive) and other of stsb (regression)" in message
    assert "--split: 'test' is refused; SST-2 has dev" in refusal(
        capsys, "benchmark", "pruned", "--split", "test", *quick
    )
    assert not Path("benchmark").exists()


@pytest.mark.parametrize("command", [("predict", "a.txt"), ("benchmark",)])
def test_an_onnx_file_needs_what_belongs_to_it(folder, capsys, command):
    pytest.importorskip("onnxruntime")
    Path("a.txt").write_text("good\n")
    name, *rest = command
    shutil.copy("pruned.onnx", "alone.onnx")
    assert "alone.json: no such file; an exported model is NAME.onnx with" in refusal(capsys, name, "alone.onnx", *rest)
    record = json.loads(Path("pruned.json").read_text())
    record["task"] = TASKS["cola"].to_dict()
    Path("pruned.json").write_text(json.dumps(record))
    assert "pruned.onnx: exported for task sst2, and pruned.json beside it is of task cola" in refusal(
        capsys, name, "pruned.onnx", *rest
    )


@pytest.mark.slow
@pytest.mark.nightly
def test_peak_memory_is_that_of_a_process_of_its_own(folder):
    pytest.importorskip("onnxruntime")
    peaks = {name: memory_probe.measure_peak_memory(Path(name), 1, 8, 1) for name in models(folder)}
    # Keras and its backend against ONNX Runtime alone; this process holds both.
    assert 3e7 < peaks["pruned.onnx"] < 0.5 * peaks["pruned"] and peaks["pruned"] < 4e9
    Path("pruned/model.keras").write_bytes(b"x")
    with pytest.raises(memory_probe.UserError, match="pruned: the process that measures its memory failed"):
        memory_probe.measure_peak_memory(Path("pruned"), 1, 8, 1)
