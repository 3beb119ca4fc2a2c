"""Folders of explanations: what is read, and what is refused."""

from pathlib import Path

import pytest

from gated_bert.experiments.explanations.explained import (
    check_noise_floor,
    check_variant,
    read_comparable,
    read_explained,
)
from gated_bert.support.errors import UserError
from tests.experiments.explained_folders import CLASSES, LABELS, TEXTS, WEIGHTS, write_folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_read_as_it_was_written():
    found = read_explained(write_folder(Path("a"), predicted={2: "World"}))
    assert found.texts == TEXTS and found.weights == WEIGHTS
    assert found.predicted == {0: "Sports", 2: "World", 5: "World"}
    assert found.accuracy == 0.5  # of the two whose class is known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1, "model": "gone/a"}, None),
        ({"seed": 1}, None),
        ({"model": "./gone/a"}, "b: of the same model and seed as a, gone/a; give each model once"),
        ({"labels": CLASSES[::-1]}, "b: its labels is"),
        ({"task": "sst2"}, "b: its task is sst2, and that of a ag_news; explain both alike"),
        ({"num_samples": 90}, "b: its num_samples is 90, and that of a 500"),
        ({"texts": TEXTS | {2: "else"}}, "other documents than those of a (3 documents, and a 3, the first that"),
        ({"gold": LABELS | {5: "World"}}, "b: document 5 is of class World, and in a of None; explain both from the s"),
        ({"texts": {0: TEXTS[0]}}, "(1 documents, and a 3, the first that differs is document 2); explain the same"),
    ],
)
def test_only_the_same_documents_explained_alike_are_compared(change, message):
    folders = [write_folder(Path("a")), write_folder(Path("b"), **change)]
    if message is None:
        assert len(read_comparable(folders)) == 2
    else:
        with pytest.raises(UserError) as error:
            read_comparable(folders)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 10**12}, "num_samples is 1000000000000; allowed: 10 to 1,000,000"),
        ({"num_samples": 0}, "num_samples is 0; allowed: 10 to"),
        ({"num_features": -1}, "num_features is -1; allowed: 1 to"),
        ({"seed": -1}, "seed is -1; allowed: 0 to"),
        ({"max_len": 10**20}, "max_len is 100000000000000000000; allowed: 8 to"),
        ({"labels": ["World", "Business", "Sci/Tech"]}, "document 0: the label 'Sports' is no class of record.json"),
        ({"gold": LABELS | {2: "Weather"}}, "document 2: the label 'Weather' is no class"),
    ],
)
def test_what_other_models_could_not_be_explained_by_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        read_explained(write_folder(Path("a"), **change))


def test_variants_share_the_seed_and_the_noise_floor_does_not():
    base, variant, seeded, again, other = read_comparable([
        write_folder(Path("base")), write_folder(Path("variant")), write_folder(Path("seeded"), seed=7),
        write_folder(Path("again"), seed=7, model="gone/base"), write_folder(Path("other"), seed=8),
    ])  # fmt: skip
    check_variant(base, variant)
    check_noise_floor(base, again)
    with pytest.raises(UserError, match="seeded: its seed is 7, and that of base 0; explain both with the same, so"):
        check_variant(base, seeded)
    with pytest.raises(UserError, match="--noise-floor: other explains gone/other; it must be gone/base, with another"):
        check_noise_floor(base, other)
    with pytest.raises(UserError, match="--noise-floor: base has the seed of base, 0; it must have another"):
        check_noise_floor(base, base)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("record.json", '"seed"', '"sed"', "record.json: no field 'seed'; explain the documents again"),
        ("record.json", '"words"', '"tokens"', "a: no explanations by words; explain the documents without --token"),
        ("record.json", "true", "false", "a: not all documents are explained; go on with `gated-bert explain … --res"),
        ("documents.jsonl", '{"document": 2', '{"document": 2,,', "documents.jsonl, line 2: malformed JSON"),
        ("documents.jsonl", '"text"', '"txt"', "documents.jsonl, line 1: no field 'text'"),
    ],
)
def test_malformed_folders_are_refused_by_their_file(name, old, new, message):
    folder = write_folder(Path("a"))
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        read_explained(folder)
    assert message in str(error.value)
    (folder / "record.json").unlink()
    with pytest.raises(UserError, match="a: no explanations here; `gated-bert explain MODEL … -o a` writes some"):
        read_explained(folder)
