"""`gated-bert compare-explanations` and `pos`, as a user types them."""

import csv
import json
import os
from pathlib import Path

import pytest

from gated_bert.cli.main import main
from gated_bert.compression.benchmark import read_judged
from gated_bert.experiments.explanations import explaining as explanations
from gated_bert.models.folder import load_model
from tests.experiments.explained_folders import TEXTS, WEIGHTS, write_folder
from tests.refused import refusal
from tests.test_deploy_commands import saved_model

LESS = {
    (0, "Sports"): {"beat": 0.5, "champions": -0.3, "to": -0.1, "plan": 0.05},
    (2, "Business"): {"rose": 0.6, "bank": 0.4, "on": -0.02},
    (5, "World"): {"war": 0.4, "can": 0.3, "Troops": 0.1, "march": -0.05},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What a command sets for the libraries it is about to start, in a process where they run already.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    write_folder(Path("base"))
    write_folder(Path("again"), {key: {**each, "on": 0.2} for key, each in WEIGHTS.items()}, seed=1,
                 model="gone/base")  # fmt: skip
    write_folder(Path("pruned"), LESS, predicted={2: "World"})


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folders_are_compared_with_their_noise_floor(capsys):
    write_folder(Path("same"))
    words = ["compare-explanations", "base", "same", "pruned", "--noise-floor", "again", "-o", "out", "-k", "1"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "similarity to the explanations of base on 3 documents" in shown and "noise floor: base against" in shown
    rows = read("out/similarities.csv")
    assert [row["variant"] for row in rows] == ["noise floor"] * 3 + ["same"] * 3 + ["pruned"] * 3
    assert {round(float(row["cosine"]), 9) for row in rows[3:6]} == {1} and [row["jaccard"] for row in rows[6:]] == [
        "0.0"
    ] * 3
    dot = 0.5 * -0.3 + 0.3 * 0.5 + 0.01 + 0.0025
    assert float(rows[6]["cosine"]) == pytest.approx(dot / (0.25 + 0.09 + 0.01 + 0.0025))
    summary = {(row["variant"], row["measure"]): row for row in read("out/similarity.csv")}
    assert len(summary) == 3 * 4 and summary["noise floor", "cosine"]["difference"] == ""
    cosines = [float(row["cosine"]) for row in rows]
    expected = (sum(cosines[6:]) - sum(cosines[:3])) / 3
    assert float(summary["pruned", "cosine"]["difference"]) == pytest.approx(expected)
    assert summary["pruned", "cosine"]["verdict"] == "less alike than the noise floor"
    assert summary["same", "cosine"]["excludes_zero"] == "True" and float(
        summary["same", "rbo"]["low"]
    ) == pytest.approx(1)
    models = {row["model"]: row for row in read("out/models.csv")}
    assert [models[name]["document_accuracy"] for name in ("base", "same", "pruned")] == ["1.0", "1.0", "0.5"]
    assert models["pruned"]["document_accuracy_drop"] == "0.5" == summary["pruned", "rbo"]["document_accuracy_drop"]
    assert float(models["pruned"]["same_prediction"]) == pytest.approx(2 / 3)
    record = json.loads(Path("out/similarity.json").read_text())
    assert record["base"] == "base" and record["top_k"] == 1 and record["models"][2]["seed"] == 0
    # The models are gone, so that nothing is known of their sizes.
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "models.csv", "similarities.csv", "similarity.csv", "similarity.json", "similarity_distributions.png"
    ]  # fmt: skip


def test_compare_explanations_says_what_is_wrong(capsys):
    def refused(*words):
        return refusal(capsys, "compare-explanations", *words)

    write_folder(Path("texts"), texts=TEXTS | {5: "Else."})
    write_folder(Path("task"), task="sst2")
    write_folder(Path("seeded"), seed=3)
    write_folder(Path("twin"), model="gone/base")
    assert "a base model and at least one variant are needed" in refused("base")
    assert "nowhere: no such file or folder" in refused("base", "nowhere", "--noise-floor", "again")
    assert "--noise-floor: 'nowhere' is refused; allowed: a folder of explanations" in refused(
        "base", "pruned", "--noise-floor", "nowhere"
    )
    assert "the same model twice" in refused("base", "pruned", "base", "--noise-floor", "again")
    assert "texts: other documents than those of base" in refused("base", "texts", "--noise-floor", "again")
    assert "task: of task sst2 (World, Sports, Business, Sci/Tech), and base of ag_news" in refused(
        "base", "task", "--noise-floor", "again"
    )
    assert "seeded: its seed is 3, and that of base 0" in refused("base", "seeded", "--noise-floor", "again")
    assert "--noise-floor: seeded explains gone/seeded; it must be gone/base" in refused(
        "base", "pruned", "--noise-floor", "seeded"
    )
    assert "twin: of the same model and seed as base, gone/base" in refused("base", "twin", "--noise-floor", "again")
    assert "base: its model, gone/base, is not there to be explained with another seed" in refused("base", "pruned")
    assert "--num-samples: not where the first is a folder of explanations, as base is" in refused(
        "base", "pruned", "--num-samples", "100"
    )
    assert "-d/--data: 'nowhere' is refused" in refused("base", "pruned", "-d", "nowhere")
    assert "--split: only with -d" in refused("base", "pruned", "--split", "dev")
    assert "-k/--top-k: 0 is refused" in refused("base", "pruned", "-k", "0")
    assert "an explained model, is not there to be judged" in refused(
        "base", "pruned", "--noise-floor", "again", "-d", "embedded"
    )
    assert not Path("explanation_similarity").exists()


@pytest.mark.nltk_data
def test_parts_of_speech_of_folders(nltk_data, capsys):
    assert main(["pos", "base", "pruned", "-o", "out", "-k", "2"]) == 0
    shown = capsys.readouterr().out
    assert "up to 2 words of each of 3 documents of news, test; p: chi-square test against base" in shown
    words = {(row["model"], row["document"], row["word"]): row for row in read("out/pos_words.csv")}
    assert {word for model, _, word in words if model == "base"} == {
        "champions", "beat", "Shares", "bank", "Troops", "war"
    }  # fmt: skip
    # Document 2 has no explanation of the class that the pruned model predicts.
    assert {word for model, _, word in words if model == "pruned"} == {"champions", "beat", "war", "can"}
    assert words["base", "0", "beat"]["penn"] == "verb" and words["pruned", "5", "can"]["role"] == "contextual"
    shares = {(row["model"], row["tagset"], row["group"]): float(row["share"]) for row in read("out/pos.csv")}
    assert shares["base", "penn", "noun"] == shares["base", "universal", "NOUN"] == pytest.approx(5 / 6)
    assert shares["pruned", "penn", "modal"] == shares["pruned", "role", "contextual"] == 0.25
    tests = {row["tagset"]: row for row in read("out/pos_tests.csv")}
    # Nouns, verbs and modals: 5, 1, 0 against 2, 1, 1.
    pairs = (5, 4.2), (1, 1.2), (0, 0.6), (2, 2.8), (1, 0.8), (1, 0.4)
    expected = sum((seen - mean) ** 2 / mean for seen, mean in pairs)
    assert float(tests["penn"]["chi_square"]) == pytest.approx(expected) and tests["penn"]["base"] == "base"
    assert Path("out/pos.png").read_bytes().startswith(b"\x89PNG")


def test_pos_says_what_is_wrong(capsys, monkeypatch):
    nltk = pytest.importorskip("nltk")
    assert "pos: at least one model or folder of explanations" in refusal(capsys, "pos")
    assert "-k/--top-k: 'x' is refused" in refusal(capsys, "pos", "base", "-k", "x")
    monkeypatch.setattr(nltk.data, "path", [])
    assert "averaged_perceptron_tagger_eng, punkt_tab, universal_tagset not found" in refusal(capsys, "pos", "base")
    assert not Path("pos").exists()


@pytest.fixture
def models():
    """A dense and a pruned model, and a file of texts and their classes."""
    pytest.importorskip("lime")
    saved_model(Path("dense"), closed=False)
    saved_model(Path("closed"))
    rows = ["good film\t1", "bad films\t0", "good good bad films good\t1", "a bad film is a bad film\t0"]
    Path("texts.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return ["dense", "closed", "--file", "texts.tsv", "--num-samples", "40", "-o", "out"]


def test_models_are_explained_with_the_same_samples(models, capsys):
    assert main(["compare-explanations", *models]) == 0
    assert "seed 43" in capsys.readouterr().out
    summary = read("out/similarity.csv")
    assert {row["variant"] for row in summary} == {"noise floor", "closed"}
    facts = {row["model"]: row for row in read("out/models.csv")}
    counts = [int(facts[name]["nonzero_parameters"]) for name in ("dense", "closed")]
    assert counts[0] - counts[1] == 64 and facts["dense"]["removed_percent"] == "0.0"
    assert float(facts["closed"]["removed_percent"]) == pytest.approx(100 * 64 / counts[0])
    records = [json.loads(Path(f"out/explanations/{name}/record.json").read_text())
               for name in ("dense", "closed", "noise_floor")]  # fmt: skip
    assert [record["seed"] for record in records] == [42, 42, 43] and records[0]["documents"] == [1, 2, 3, 4]
    assert [record["model"] for record in records] == ["dense", "closed", "dense"]
    assert Path("out/similarity_levels.png").read_bytes().startswith(b"\x89PNG")
    # The same model in another folder has the same explanations, word by word, as it sees the same samples.
    os.rename("dense", "moved")
    assert main(["compare-explanations", "out/explanations/dense", "moved", "--noise-floor",
                 "out/explanations/noise_floor", "-o", "again"]) == 0  # fmt: skip
    same = [row for row in read("again/similarities.csv") if row["variant"] == "moved"]
    assert len(same) >= 4 and {round(float(row["rbo"]), 9) for row in same} == {1}
    before, after = (Path(f"{place}/explanations.csv").read_text()
                     for place in ("out/explanations/dense", "again/explanations/moved"))  # fmt: skip
    assert before == after


@pytest.mark.nightly
def test_a_stopped_comparison_goes_on(models, capsys, monkeypatch):
    append, stopped = explanations.append_document, []

    def stop(out, line):
        append(out, line)
        if out.name == "closed" and not stopped:
            stopped.append(line["document"])
            raise KeyboardInterrupt

    monkeypatch.setattr(explanations, "append_document", stop)
    assert main(["compare-explanations", *models]) == 130
    assert "1 of 4 documents are explained in out/explanations/closed" in capsys.readouterr().err
    assert "out: holds explanations already; go on with them by --resume" in refusal(
        capsys, "compare-explanations", *models
    )
    kept = Path("out/explanations/closed/documents.jsonl").read_text()
    assert main(["compare-explanations", *models, "--resume"]) == 0
    assert Path("out/explanations/closed/documents.jsonl").read_text().startswith(kept)
    assert len(read("out/models.csv")) == 2


def test_variants_are_read_before_the_base_is_explained(models, capsys):
    saved_model(Path("cola"), task="cola")
    assert "cola: of task cola (unacceptable, acceptable), and dense of sst2 (negative, positive)" in refusal(
        capsys, "compare-explanations", "dense", "cola", *models[2:]
    )
    Path("empty").mkdir()
    assert "empty" in refusal(capsys, "compare-explanations", "dense", "empty", *models[2:])
    assert "documents: give one of a FILE of texts" in refusal(capsys, "compare-explanations", "dense", "closed")
    assert not Path("out").exists()


@pytest.mark.nightly
def test_models_are_judged_on_the_test_set(models, capsys):
    words = ["dense", "closed", "-d", "embedded", "--documents", "3", "--num-samples", "20", "-o", "out"]
    assert main(["compare-explanations", *words]) == 0
    assert "accuracy (%), embedded data, dev" in capsys.readouterr().out
    facts = {row["model"]: row for row in read("out/models.csv")}
    examples, measured = read_judged({"": load_model("dense")}, "embedded").examples, {}
    pairs = zip(examples.texts, examples.labels, strict=True)
    Path("dev.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in pairs))
    for name in facts:
        assert main(["predict", name, "dev.tsv", "-o", f"{name}.csv"]) == 0
        measured[name] = json.loads(Path(f"{name}_metrics.json").read_text())["accuracy"]
    assert {name: float(each["test_value"]) for name, each in facts.items()} == pytest.approx(measured)
    drop = measured["dense"] - measured["closed"]
    assert float(facts["closed"]["test_drop"]) == pytest.approx(drop)
    # What is known of a model is not found out again.
    kept = json.loads(Path("out/judged.json").read_text())
    kept["models"][str(Path("closed").resolve())]["test_value"] = 0.125
    Path("out/judged.json").write_text(json.dumps(kept))
    assert main(["compare-explanations", *words, "--resume"]) == 0
    found = {row["model"]: float(row["test_value"]) for row in read("out/models.csv")}
    assert found == pytest.approx(measured | {"closed": 0.125})


@pytest.mark.nltk_data
def test_parts_of_speech_of_models(models, nltk_data):
    assert main(["pos", *models, "-k", "3"]) == 0
    assert {row["model"] for row in read("out/pos_words.csv")} == {"dense", "closed"}
    assert Path("out/explanations/closed/explanations.html").is_file()
