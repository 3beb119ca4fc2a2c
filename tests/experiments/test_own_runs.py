"""Runs on a user's own data: what is said of them, their test file, and weights whose classes are ordered otherwise."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.compression.benchmark import judge, read_judged
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.run import train
from gated_bert.models.folder import load_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import Task

VOCAB = Path(__file__).resolve().parent.parent / "fixtures" / "bert" / "vocab.txt"
RIGHT = 0.85
"""Accuracy that is far above what swapped classes would have."""
SIZES = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32}


def write_rows(path, count, classes=("bad", "good"), seed=0):
    """Texts of three letters, of which b or g tells the class."""
    rng = np.random.default_rng(seed)
    lines = []
    for row in range(count):
        letters = [("b", "g")[row % 2], *rng.choice(list("klmn"), 2)]
        rng.shuffle(letters)
        lines.append(f"{' '.join(letters)}\t{classes[row % 2]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return path


def config_of(data, **options):
    options = {"pretrained": None, "learning_rate": 1e-2, "epochs": 3, **options}
    sizes = SIZES if options["pretrained"] is None else {"vocab": None}
    return GatedBertConfig(pruning_method="baseline", data=str(data), batch_size=16, max_len=8,
                           **{"vocab": str(VOCAB), **sizes, **options})  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on `moods/`, which holds a training and a test file."""
    place = tmp_path_factory.mktemp("own")
    write_rows(place / "moods" / "train.tsv", 320)
    write_rows(place / "moods" / "test.tsv", 40, seed=1)
    result = train(config_of(place / "moods" / "train.tsv"), place / "run")
    assert result.final["val_accuracy"] > RIGHT
    return place, result


@pytest.mark.nightly
def test_a_run_is_judged_on_its_test_file_too_and_says_what_it_decided(finished):
    place, result = finished
    assert result.final["val_accuracy_test"] > RIGHT
    log = (result.folder / "log.txt").read_text()
    for sentence in ("2 classes: bad, good in 320 rows of train.tsv (column 'label')",
                     "10 % of train.tsv, drawn with seed 0, are the development examples",
                     "test.tsv is judged on too, as val_…_test"):  # fmt: skip
        assert log.count(sentence) == 1
    metadata = json.loads(next(result.folder.glob("metadata_*.json")).read_text())
    assert metadata["task"]["name"] == "moods" and metadata["data"]["rows"] == {"train": 288, "dev": 32, "test": 40}


def test_models_are_judged_on_the_test_file_by_the_names_of_the_classes(finished, tmp_path):
    place, result = finished
    loaded = load_model(result.folder / "model")
    judged = read_judged({"model": loaded}, str(place / "moods"))
    assert judged.label.endswith(", test") and judge(loaded, judged)["value"] > RIGHT
    # Where there is no test file any more, as in a single file, there is the development part of it.
    alone = write_rows(tmp_path / "moods.tsv", 50)
    assert judge(loaded, read_judged({"model": loaded}, str(alone)))["value"] > RIGHT
    other = Task("moods", "moods", labels=("good", "bad"))
    swapped = read_judged({"model": type(loaded)(loaded.model, loaded.tokenizer, other, loaded.config, {})}, str(alone))
    assert swapped.examples.labels.tolist() == [1 - label for label in read_judged(
        {"model": loaded}, str(alone)).examples.labels]  # fmt: skip


@pytest.mark.nightly
def test_weights_whose_classes_are_sorted_otherwise_start_where_they_were(finished, tmp_path, capsys):
    _, result = finished
    # Capitals come first, so that these are sorted the other way round.
    data = write_rows(tmp_path / "capitals.tsv", 100, ("bad", "GOOD"))
    model = str(result.folder / "model")
    for pretrained in (model, str(tmp_path / "hf")):
        config = config_of(data, pretrained=pretrained, learning_rate=1e-12, epochs=1)
        if pretrained != model:
            assert main(["export", model, pretrained, "--format", "hf"]) == 0
        again = train(config, tmp_path / "again")
        assert load_model(again.folder / "model").task.labels == ("GOOD", "bad")
        assert again.final["val_accuracy"] > RIGHT
        shutil.rmtree(tmp_path / "again")
    assert main(["predict", model, str(tmp_path / "capitals.tsv"), "-o", str(tmp_path / "p.csv")]) == 2
    assert "unknown label 'GOOD'" in capsys.readouterr().err


def test_weights_of_other_classes_get_a_new_head_which_is_said(finished, tmp_path):
    _, result = finished
    data = write_rows(tmp_path / "letters.tsv", 60, ("b", "g"))
    config = config_of(data, pretrained=str(result.folder / "model"), learning_rate=1e-12, epochs=1)
    with pytest.warns(UserWarning, match="its head has the classes bad, good, letters.tsv has b, g; the model's head"):
        train(config, tmp_path / "run")
    assert "its head has the classes bad, good, letters.tsv has b, g" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.nightly
def test_a_run_goes_on_with_its_own_classes_only(tmp_path):
    data = write_rows(tmp_path / "moods.tsv", 200)

    def stop(status):
        if status.get("epoch", 0) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config_of(data, epochs=3, checkpoint_steps=1), tmp_path / "run", notify=stop)
    write_rows(data, 200, ("bad", "Good"))
    with pytest.raises(UserError, match="--resume with the classes Good, bad, but the run was begun with bad, good"):
        train(config_of(data, epochs=3, checkpoint_steps=1), tmp_path / "run", resume=True)
    write_rows(data, 200)
    assert train(config_of(data, epochs=3, checkpoint_steps=1), tmp_path / "run", resume=True).final["epoch"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task-type", "ranking"], "--task-type: 'ranking' is refused; allowed: classification, regression"),
        (["--task-type", "regression"], "moods.tsv, line 2: 'bad' in column 'label' is no finite number, as --task"),
    ],
)
def test_the_launcher_refuses_what_labels_cannot_be(words, message, tmp_path, capsys):
    data = write_rows(tmp_path / "moods.tsv", 20)
    flags = ["-d", str(data), "--vocab", str(VOCAB), "-m", "tiny", "-e", "1", "-p", "baseline", "-o", str(tmp_path)]
    assert main(["sweep", *flags, *words]) == 2
    assert message in capsys.readouterr().err


def test_the_launcher_refuses_the_kind_of_a_known_task(tmp_path, capsys):
    flags = ["-t", "sst2", "-d", "embedded", "-m", "tiny", "-e", "1", "-p", "baseline", "-o", str(tmp_path / "r")]
    assert main(["sweep", *flags, "--task-type", "classification"]) == 2
    assert "--task-type: 'classification' is refused; allowed: own data only" in capsys.readouterr().err
