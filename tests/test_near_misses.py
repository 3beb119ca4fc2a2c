"""Near misses of data, tasks and values are answered with what was meant."""

import gzip

import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.support.checks import ELSEWHERE, did_you_mean
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data
from tests.refused import refusal

ROWS = "sentence\tlabel\nit is good\t1\nit is bad\t0\n"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """`data/glue/SST-2`, `data/glue/RTE` and `data/ag_news` with their official files, and `data/bert`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATED_BERT_DATA", raising=False)
    sst2 = tmp_path / "data/glue/SST-2"
    sst2.mkdir(parents=True)
    (sst2 / "dev.tsv").write_text(ROWS)
    with gzip.open(sst2 / "train.tsv.gz", "wt") as file:
        file.write(ROWS)
    (tmp_path / "data/glue/RTE").mkdir()
    (tmp_path / "data/glue/RTE/train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
    (tmp_path / "data/ag_news").mkdir()
    (tmp_path / "data/ag_news/train.csv").write_text("1,a,b\n")
    (tmp_path / "data/bert").mkdir()
    (tmp_path / "data/reviews.csv").write_text("text,label\na,1\nb,0\n")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("data/glue/sst2", "data/glue/SST-2"), ("data/glue/SST2/", "data/glue/SST-2"),
     ("data/gleu/SST-2", "data/glue/SST-2"), ("Data/GLUE/sst_2", "data/glue/SST-2"),
     ("data/AGNews", "data/ag_news"), ("data/review.csv", "data/reviews.csv"),
     ("data/reviews.tsv", "data/reviews.csv"), ("data/reviews", "data/reviews.csv")],
)  # fmt: skip
def test_a_path_that_is_not_there_is_answered_with_the_one_beside_it(given, meant, data, capsys):
    line = refusal(capsys, "train", "-m", "tiny", "-d", given)
    assert f"(did you mean {data.parent / meant}?)" in line


@pytest.mark.parametrize("given", ["train.tsv", "test.tsv", "training.tsv"])
def test_a_file_that_an_official_folder_lacks_is_answered_with_the_folder(given, data, capsys):
    line = refusal(capsys, "train", "-m", "tiny", "-d", f"data/glue/SST-2/{given}")
    assert f"(did you mean {data / 'glue/SST-2'}, the official folder of sst2?)" in line


@pytest.mark.parametrize(("given", "task"), [("sst2", "sst2"), ("SST-2", "sst2"), ("squad", "squad"), ("rte", "rte")])
def test_a_task_in_the_place_of_data_is_told_so(given, task, data, capsys):
    assert f"(the task is -t {task}; did you mean hub?)" in refusal(capsys, "train", "-d", given)


@pytest.mark.parametrize("given", ["nothing/like/it", "zzz", "/zzz/zzz"])
def test_nothing_is_made_up(given, data, capsys):
    assert "did you mean" not in refusal(capsys, "train", "-d", given)


@pytest.mark.parametrize(
    ("given", "task", "meant"),
    [("data/bert", "sst2", "data?"), (".", "sst2", "data?"), ("data/glue/RTE", "sst2", "data/glue?"),
     ("data/glue/SST-2", "ag_news", "data?"), ("data/bert", "ag_news", "data?")],
)  # fmt: skip
def test_data_that_is_not_in_a_folder_is_named_where_it_is_near(given, task, meant, data):
    with pytest.raises(UserError) as refused:
        load_task_data(GatedBertConfig(model_size="tiny", data=str(data.parent / given), task=task))
    assert f"(did you mean {data.parent / meant}" in str(refused.value) and "\n" not in str(refused.value)


def test_an_official_file_read_as_ones_own_is_answered_with_its_folder(data):
    with pytest.raises(UserError, match=r"no column 'text'.*did you mean .*/SST-2, the official folder of sst2\?"):
        load_task_data(GatedBertConfig(model_size="tiny", data=str(data / "glue/SST-2/dev.tsv")))


def test_a_folder_with_a_fault_of_its_own_is_told_that_alone(data):
    (data / "glue/SST-2/dev.tsv").write_text("sentence\tlabel\n\t1\n")
    with pytest.raises(UserError) as refused:
        load_task_data(GatedBertConfig(model_size="tiny", data=str(data / "glue/SST-2")))
    assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "meant"),
    [("-t SST-2", "sst2"), ("-t STS_B", "stsb"), ("-t AGNews", "ag_news"), ("-t sst", "sst2"),
     ("-p Magnitude", "magnitude"), ("-p soft-movement", "soft_movement"),
     ("-p MvP", "movement"), ("-m bert_tiny", "bert-tiny"), ("-m Base", "base"),
     ("-m bert-base", "base"), ("--precision bf16", "mixed_bfloat16"), ("--precision FP16", "mixed_float16"),
     ("--optimizer SGD", "sgd"), ("--schedule OneShot", "one_shot"), ("--pattern 2:4", "vector"),
     ("--pattern HEADS", "head"), ("--scope layerwise", "layer"), ("--recipe SoftMovement", "soft_movement"),
     ("--track TB", "tensorboard"), ("-f 90%", "0.9"), ("-f 0,9", "0.9"), ("-f 90", "0.9"), ("-l 2e-5,", "2e-05"),
     ("-e 3.", "3"), ("--Epochs 3", "--epochs"), ("-epochs 3", "--epochs")],
)  # fmt: skip
def test_values_of_flags_are_answered_with_the_one_meant(words, meant, capsys):
    assert f"(did you mean {meant}?)" in refusal(capsys, "train", "-d", "embedded", "-m", "tiny", *words.split())


def test_names_of_other_tools_lead_to_names_that_are_known():
    """Each to one that some flag allows; the names themselves are none of them."""
    known = {"movement", "magnitude", "baseline", "element", "head_neuron", "neuron", "head", "vector", "layer", "base",
             "large", "mixed_float16", "mixed_bfloat16", "float32", "tensorboard", "wandb", "cubic", "one_shot", "stsb",
             "sst2", "ag_news", "hub", "embedded", "tensorflow"}  # fmt: skip
    assert {name for names in ELSEWHERE.values() for name in names} == known
    assert did_you_mean("glue", ("sst2", "cola")) == " (did you mean sst2?)"
    assert did_you_mean("qqq", ("sst2", "cola")) == ""
