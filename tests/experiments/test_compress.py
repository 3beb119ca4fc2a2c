"""`gated-bert compress`, from training to the report, on embedded news."""

import json

import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.experiments.studies.compress_report import report_rows
from gated_bert.models.folder import read_architecture
from tests.pictures import is_drawn
from tests.refused import refusal

pytest.importorskip("onnx")
WORDS = (
    "compress -t ag_news -d embedded -m tiny --num-layers 1 --d-model 32 --num-heads 2 --dff 64 -b 64 -l 1e-3 -ml 32 "
    "--train-examples 300 --dense-epochs 1 -e 1 --levels 50 --output-mode logs -o study"
).split()


@pytest.mark.slow
def test_a_study_makes_every_model_and_goes_on_where_it_stopped(
    jobs_here, commands_here, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERBOSE", "0")
    assert main(WORDS) == 0
    models = tmp_path / "study" / "models"
    names = ["base", "pruned_50", "shrunk_50"]
    assert sorted(path.name for path in models.iterdir()) == [*names[:1], "fp16", "int8", "onnx", *names[1:]]
    for form in ("onnx", "int8", "fp16"):
        assert sorted(path.name for path in (models / form).glob("*.onnx")) == ["base.onnx", "shrunk_50.onnx"]
    sizes = {name: read_architecture(models / name).layers[0] for name in names}
    assert sizes["pruned_50"] == sizes["base"]
    assert sizes["shrunk_50"].num_heads == sizes["base"].num_heads // 2
    assert sizes["shrunk_50"].intermediate_size == sizes["base"].intermediate_size // 2
    table = pd.read_csv(tmp_path / "study" / "reports" / "compression.csv")
    assert len(table) == 3 + 6 and set(table["form"]) == {"keras", "onnx", "int8", "fp16"}
    value = table.set_index(["kind", "level", "form"])["value"]
    # What is shrunk or exported in 32 bits is the same model, on the same 800 examples.
    assert value["base", 0, "onnx"] == value["base", 0, "keras"]
    assert value["shrunk", 50, "keras"] == value["pruned", 50, "keras"] == value["shrunk", 50, "onnx"]
    assert is_drawn(tmp_path / "study" / "reports" / "compression.png")

    assert "holds compressed models; go on with --resume" in _error(capfd, WORDS)
    (models / "int8" / "base.onnx").unlink()
    kept = (models / "onnx" / "base.onnx").stat().st_mtime_ns
    assert main([*WORDS, "--resume"]) == 0
    printed = capfd.readouterr().out
    assert "int8/base.onnx:" in printed and "shrunk_50:" not in printed and "measured already" not in printed
    assert (models / "onnx" / "base.onnx").stat().st_mtime_ns == kept
    assert main([*WORDS, "--resume"]) == 0
    assert "measured already" in capfd.readouterr().out


def _error(capfd, words):
    capfd.readouterr()
    assert main(words) == 2
    return capfd.readouterr().err


def test_rows_are_named_by_their_place_and_compared_with_the_base(tmp_path):
    places = ("int8/shrunk_20.onnx", "pruned_20", "base", "onnx/base.onnx")
    values = (0.5, 0.75, 0.875, 0.875)
    measured = [{"path": str(tmp_path / place), "value": value} for place, value in zip(places, values, strict=True)]
    rows = report_rows(json.loads(json.dumps(measured)), tmp_path)
    assert [(row["kind"], row["level"], row["form"], row["metric_change"]) for row in rows] == [
        ("base", 0, "keras", 0.0),
        ("base", 0, "onnx", 0.0),
        ("pruned", 20, "keras", -0.125),
        ("shrunk", 20, "int8", -0.375),
    ]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--levels 0,20", "--levels: '0,20' is refused; allowed: percentages from 1 to 99"),
        ("--levels some", "--levels: 'some' is refused"),
        ("-t sst2,cola", "-t/--task: 'sst2,cola' is refused; allowed: one of them"),
        ("--strategy magnitude,random", "--strategy: 'magnitude,random' is refused; allowed: one of them"),
        ("--strategy movement", "--strategy: 'movement' is refused"),
        ("--dense-epochs 0", "--dense-epochs: 0 needs -pt"),
    ],
)
def test_refusals(capsys, words, part):
    assert part in refusal(capsys, "compress", "-d", "embedded", *words.split())
