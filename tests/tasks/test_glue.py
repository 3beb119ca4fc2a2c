import gzip

import numpy as np
import pytest

from gated_bert.support.errors import UserError
from gated_bert.tasks.glue import read_glue_folder
from gated_bert.tasks.task import TASKS

# Rows and label counts of the real files, counted by other means.
REAL = {
    "sst2": (67_349, (29_780, 37_569), {"dev": 872}, "SST-2"),
    "cola": (8_551, (2_528, 6_023), {"dev": 1_043}, "CoLA"),
    "mrpc": (3_668, (1_194, 2_474), {"dev": 408}, "MRPC"),
    "stsb": (5_749, None, {"dev": 1_500}, "STS-B"),
    "rte": (2_490, (1_249, 1_241), {"dev": 277}, "RTE"),
    "wnli": (635, (323, 312), {"dev": 71}, "WNLI"),
    "qnli": (10_475, (5_227, 5_248), {"dev": 5_463}, "QNLI (partial training data)"),
    "mnli": (
        9_888, (3_213, 3_326, 3_349), {"dev_matched": 6_238, "dev_mismatched": 999},
        "MNLI (partial training and development data)",
    ),
}  # fmt: skip


def put(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def test_sst2_with_a_packed_training_file(tmp_path):
    put(tmp_path, "SST-2/train.tsv.gz", 'sentence\tlabel\nfine film \t1\n"bad\t0\n')
    put(tmp_path, "SST-2/dev.tsv", "sentence\tlabel\nso so\t0\n")
    data = read_glue_folder(tmp_path, TASKS["sst2"])
    assert data.train.texts == ["fine film ", '"bad']
    assert data.train.labels.tolist() == [1, 0] and data.train.labels.dtype == np.int32
    assert data.train.pairs is None
    assert data.dev["dev"].texts == ["so so"]
    assert data.source["label"] == "SST-2" and not data.source["partial"]
    assert read_glue_folder(tmp_path / "SST-2", TASKS["sst2"]).train.texts == data.train.texts


def test_cola_has_no_header(tmp_path):
    for split in ("train", "dev"):
        put(tmp_path, f"glue/CoLA/{split}.tsv", "gj04\t1\t\tThey drank the pub dry.\ngj04\t0\t*\tThey drank the pub.\n")
    data = read_glue_folder(tmp_path, TASKS["cola"])
    assert data.train.texts == ["They drank the pub dry.", "They drank the pub."]
    assert data.train.labels.tolist() == [1, 0]


def test_mrpc_has_a_byte_order_mark(tmp_path):
    for split in ("train", "dev"):
        put(tmp_path, f"MRPC/{split}.tsv", '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA "b\t"C d\n')
    data = read_glue_folder(tmp_path, TASKS["mrpc"])
    assert (data.train.texts, data.train.pairs, data.train.labels.tolist()) == (['A "b'], ['"C d'], [1])


def test_stsb_targets_stay_scores(tmp_path):
    text = "index\tgenre\tsentence1\tsentence2\tscore\n0\tmain\ta\tb\t3.800\n1\tmain\tc\td\t5.000\n"
    for split in ("train", "dev"):
        put(tmp_path, f"STS-B/{split}.tsv", text)
    labels = read_glue_folder(tmp_path, TASKS["stsb"]).train.labels
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.float32([3.8, 5.0]))
    put(tmp_path, "STS-B/dev.tsv", text.replace("3.800", "-1"))
    with pytest.raises(UserError, match="dev.tsv, line 2: '-1' in column 'score' is refused; .* from 0 to 5"):
        read_glue_folder(tmp_path, TASKS["stsb"])


def test_mnli_reads_both_development_sets_by_name_of_the_label_column(tmp_path):
    head = "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
    put(tmp_path, "MNLI/train.tsv", head + "0\tfiction\tp\th\tneutral\tcontradiction\n")
    put(tmp_path, "MNLI/dev_matched.tsv", head + "0\tfiction\tp\th\tneutral\tentailment\n")
    put(tmp_path, "MNLI/dev_mismatched.tsv", head + "0\tletters\tp\th\tentailment\tneutral\n")
    data = read_glue_folder(tmp_path, TASKS["mnli"])
    assert data.train.labels.tolist() == [2]
    assert {split: examples.labels.tolist() for split, examples in data.dev.items()} == {
        "dev_matched": [0],
        "dev_mismatched": [1],
    }


def test_partial_files_only_when_allowed(tmp_path):
    text = "index\tquestion\tsentence\tlabel\n0\tq\ts\tentailment\n"
    put(tmp_path, "QNLI/train_partial.tsv", text)
    put(tmp_path, "QNLI/dev.tsv", text)
    with pytest.raises(UserError, match="train.tsv is missing, only train_partial.tsv is there; pass --allow-partial"):
        read_glue_folder(tmp_path, TASKS["qnli"])
    source = read_glue_folder(tmp_path, TASKS["qnli"], allow_partial=True).source
    assert source["partial"] and source["label"] == "QNLI (partial training data)"
    put(tmp_path, "QNLI/train.tsv", text)
    assert not read_glue_folder(tmp_path, TASKS["qnli"], allow_partial=True).source["partial"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "SST-2: train.tsv .or .gz. is missing; .*gated-bert download glue FOLDER"),
        ("sentence\tlabel\nfine\t2\n", "train.tsv, line 2: unknown label '2' in column 'label'; allowed: 0, 1"),
        ("sentence\tlabel\n \t1\n", "train.tsv, line 2: empty text in column 'sentence'"),
        ("text\tlabel\nfine\t1\n", "train.tsv: no column 'sentence'; found: text, label"),
        ("sentence\tlabel\nfine\t1\nfine\n", "train.tsv, line 3: 1 columns instead of 2"),
    ],
)
def test_bad_files_are_named(tmp_path, train, message):
    put(tmp_path, "SST-2/dev.tsv", "sentence\tlabel\nso so\t0\n")
    if train is not None:
        put(tmp_path, "SST-2/train.tsv", train)
    with pytest.raises(UserError, match=message):
        read_glue_folder(tmp_path, TASKS["sst2"])


def test_a_folder_without_the_task(tmp_path):
    with pytest.raises(UserError, match="no folder RTE in it; give a folder in the GLUE layout"):
        read_glue_folder(tmp_path, TASKS["rte"])


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_the_real_files_read_whole(real_data, name):
    rows, counts, dev_rows, label = REAL[name]
    data = read_glue_folder(real_data, TASKS[name], allow_partial=True)
    assert len(data.train) == rows
    assert {split: len(examples) for split, examples in data.dev.items()} == dev_rows
    assert data.source["label"] == label
    if counts:
        assert tuple(np.bincount(data.train.labels)) == counts
    else:
        assert data.train.labels.mean(dtype=np.float64) == pytest.approx(2.7010, abs=5e-5)
