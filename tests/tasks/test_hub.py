import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks import hub
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.task import TASKS


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    """Where the variable is set, a folder stands in for the hub."""
    monkeypatch.delenv("GATED_BERT_DATA", raising=False)


REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {"sst2": ["negative", "positive"], "mnli": ["entailment", "neutral", "contradiction"]}


def make_split(columns, names=None):
    label = datasets.ClassLabel(names=names) if names else datasets.Value("float32")
    features = {name: datasets.Value("string") for name in columns if name != "label"}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({**features, "label": label}))


def make_sst2(names=("negative", "positive")):
    return datasets.DatasetDict(
        train=make_split({"sentence": ["fine", "bad", "good"], "label": [1, 0, 1]}, list(names)),
        validation=make_split({"sentence": ["so so"], "label": [0]}, list(names)),
    )


def test_a_task_of_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "load_hub_dataset", lambda repo, name, remedy: make_sst2())
    data = load_task_data(GatedBertConfig())
    assert data.train.texts == ["fine", "bad", "good"] and data.train.pairs is None
    assert data.train.labels.tolist() == [1, 0, 1] and data.train.labels.dtype == np.int32
    assert data.source == {
        "kind": "hub", "label": "SST-2", "path": "nyu-mll/glue", "partial": False, "rows": {"train": 3, "dev": 1},
    }  # fmt: skip


def test_labels_go_by_their_names(monkeypatch):
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *_: make_sst2(("positive", "negative")))
    assert hub.read_hub_task(TASKS["sst2"]).train.labels.tolist() == [0, 1, 0]
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *_: make_sst2(("good", "bad")))
    with pytest.raises(UserError, match="nyu-mll/glue, validation: unknown label 'good'; allowed: negative, positive"):
        hub.read_hub_task(TASKS["sst2"])


def test_pairs_splits_and_scores(monkeypatch):
    pair = {"premise": ["p"], "hypothesis": ["h"], "label": [2]}
    splits = {
        name: make_split(pair, NAMES["mnli"]) for name in ("train", "validation_matched", "validation_mismatched")
    }
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *_: datasets.DatasetDict(splits))
    mnli = hub.read_hub_task(TASKS["mnli"])
    assert list(mnli.dev) == ["dev_matched", "dev_mismatched"] and mnli.train.pairs == ["h"]
    scores = make_split({"sentence1": ["a"], "sentence2": ["b"], "label": [3.8]})
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *_: datasets.DatasetDict(train=scores, validation=scores))
    stsb = hub.read_hub_task(TASKS["stsb"]).train.labels
    assert stsb.dtype == np.float32 and stsb[0] == np.float32(3.8)


def test_a_data_set_of_another_kind_is_named(monkeypatch):
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *_: make_sst2())
    with pytest.raises(UserError, match="no split 'validation_matched'; found: train, validation"):
        hub.read_hub_task(TASKS["mnli"])
    with pytest.raises(UserError, match="no column 'sentence1'; found: sentence, label; give the data set of RTE"):
        hub.read_hub_task(TASKS["rte"])
    hidden = make_split({"sentence": ["a"], "label": [-1]}, NAMES["sst2"])
    monkeypatch.setattr(hub, "load_hub_dataset", lambda *_: datasets.DatasetDict(train=hidden, validation=hidden))
    with pytest.raises(UserError, match="row 0: label -1 is no class; allowed: 0 to 1"):
        hub.read_hub_task(TASKS["sst2"])


def test_a_data_set_saved_to_disk(tmp_path):
    make_sst2().save_to_disk(str(tmp_path / "sst2"))
    for folder in (tmp_path, tmp_path / "sst2"):
        data = load_task_data(GatedBertConfig(data=str(folder)))
        assert data.train.texts == ["fine", "bad", "good"] and data.source["kind"] == "folder"
    shutil.rmtree(tmp_path / "sst2" / "train")
    with pytest.raises(UserError, match="train/dataset_info.json: no such file; save it again"):
        load_task_data(GatedBertConfig(data=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train/state.json", {"_data_files": [{"filename": "{place}/other/x.arrow"}]}, "no name in .*sst2/train"),
        ("train/state.json", {"_data_files": [{"filename": "../../other/x.arrow"}]}, "no name in"),
        ("train/state.json", {"_data_files": [{"filename": ".."}]}, "no name in"),
        ("train/state.json", {"_data_files": [{"filename": "link"}]}, "no name in"),
        ("train/state.json", {"_data_files": [{"filename": "pipe"}]}, "pipe: no such file"),
        ("train/state.json", {"_data_files": [{"filename": "a\0"}]}, "no name in"),
        ("train/state.json", {"_data_files": None}, "_data_files is null; allowed: a list"),
        ("train/state.json", {"_fingerprint": ["x"], "_split": 3}, "not a whole saved data set"),
        ("train/dataset_info.json", {"features": {"sentence": {"_type": "Nothing"}}}, "not a whole saved data set"),
        ("train/dataset_info.json", {"features": 3}, "not a whole saved data set"),
        ("dataset_dict.json", {"splits": ["train", "../other"]}, "'../other' is no name in"),
        ("dataset_dict.json", {"splits": ["train", "away"]}, "'away' is no name in"),
        ("dataset_dict.json", {"splits": None}, "splits is null; allowed: a list"),
    ],
)
def test_a_saved_data_set_is_read_from_its_own_folder_alone(tmp_path, name, change, message):
    make_sst2().save_to_disk(str(tmp_path / "sst2"))
    shutil.copytree(tmp_path / "sst2" / "train", tmp_path / "other")
    next((tmp_path / "other").glob("*.arrow")).rename(tmp_path / "other" / "x.arrow")
    (tmp_path / "sst2" / "train" / "link").symlink_to(tmp_path / "other" / "x.arrow")
    (tmp_path / "sst2" / "away").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "sst2" / "train" / "pipe")
    path = tmp_path / "sst2" / name
    values = json.loads(path.read_text()) | change
    path.write_text(json.dumps(values).replace("{place}", str(tmp_path)))
    with pytest.raises(UserError, match=message):
        load_task_data(GatedBertConfig(data=str(tmp_path)))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache as the library leaves it after `load_dataset("nyu-mll/glue", "sst2")`."""
    folder = tmp_path / "glue"
    folder.mkdir()
    for split, rows in make_sst2().items():
        rows.to_parquet(str(folder / f"{split}.parquet"))
    files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in ("train", "validation"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: sst2\n  data_files:\n{files}---\n")
    cache = tmp_path / "cache"
    datasets.load_dataset(str(folder), "sst2", cache_dir=str(cache))
    (cache / "glue").rename(cache / "nyu-mll___glue")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))


def test_without_a_network_the_cache_is_read_at_once(cached, monkeypatch):
    monkeypatch.setattr(hub, "hub_answers", lambda *_: False)
    start = time.perf_counter()
    assert load_task_data(GatedBertConfig()).train.texts == ["fine", "bad", "good"]
    with pytest.raises(
        UserError, match=r"nyu-mll/glue \(rte\) is not cached and the Hugging Face hub cannot be reached"
    ):
        load_task_data(GatedBertConfig(task="rte"))
    assert time.perf_counter() - start < 10, "the library's retries alone take 23 seconds"
    assert not datasets.config.HF_HUB_OFFLINE, "the library's own switch is put back"


def test_switched_off_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", None)
    assert not hub.hub_answers("nyu-mll/glue", "dataset")


def test_a_model_file_from_the_cache_and_the_name_of_a_missing_one(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--bert" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "vocab.txt").write_text("x")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr(hub, "hub_answers", lambda *_: False)
    path = hub.hub_file("someone/bert", ("tokenizer.json", "vocab.txt"), "do this")
    assert path.read_text() == "x"
    message = "config.json of someone/bert is not cached and the Hugging Face hub cannot be reached; do this"
    with pytest.raises(UserError, match=message):
        hub.hub_file("someone/bert", ("config.json",), "do this")
    with pytest.raises(UserError, match="a of not an id! cannot be had from the Hugging Face hub .*; do this"):
        hub.hub_file("not an id!", ("a",), "do this")


def test_settings_of_a_tokeniser_are_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--someone--bert"
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "snapshots" / "abc" / "there.json").write_text("{}")
    (place / ".no_exist" / "abc").mkdir(parents=True)
    (place / ".no_exist" / "abc" / "none.json").write_text("")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    asked, answers = [], iter((False, True))
    monkeypatch.setattr(hub, "hub_answers", lambda *_: next(answers))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: asked.append(name))
    hub.hub_files_beside("someone/bert", ("there.json", "none.json"))
    hub.hub_files_beside("someone/bert", ("there.json", "none.json", "new.json"))
    assert asked == [], "without a network"
    hub.hub_files_beside("someone/bert", ("there.json", "none.json", "new.json"))
    assert asked == ["new.json"]


def test_a_machine_without_a_network_is_told_so_within_seconds(tmp_path):
    code = (
        "import time, datasets; from gated_bert.config import GatedBertConfig\n"
        "from gated_bert.support.errors import UserError; from gated_bert.tasks.data import load_task_data\n"
        "start = time.perf_counter()\n"
        "try: load_task_data(GatedBertConfig())\n"
        "except UserError as error: print(error); print(time.perf_counter() - start)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GATED_BERT"))}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "no_proxy": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    line, seconds = done.stdout.splitlines()
    assert float(seconds) < 10 and "Retrying" not in done.stderr
    assert line == (
        "nyu-mll/glue (sst2) is not cached and the Hugging Face hub cannot be reached; "
        "use -d embedded, or -d FOLDER with the GLUE files"
    )


@pytest.mark.parametrize(("repo", "task"), [("nyu-mll/glue", "sst2"), ("fancyzhx/ag_news", "ag_news"),
                                            ("rajpurkar/squad", "squad")])  # fmt: skip
def test_a_folder_of_the_working_folder_is_not_taken_for_the_hub(tmp_path, monkeypatch, repo, task):
    monkeypatch.chdir(tmp_path)
    Path(repo).mkdir(parents=True)
    (Path(repo) / "train.csv").write_text("sentence,label\nof a stranger,1\n")
    with pytest.raises(UserError, match=f"^{repo}: a folder of the working folder has the name of a data set"):
        load_task_data(GatedBertConfig(task=task))
