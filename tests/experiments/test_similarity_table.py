"""Similarity in tables: pairs of explanations, means over classes, verdicts against the noise floor."""

import math

import numpy as np
import pytest

from gated_bert.experiments.explanations.similarity_table import (
    NOISE,
    document_values,
    similarity_rows,
    summary_rows,
    summary_text,
)

BASE = {(0, "a"): {"x": 2, "y": 1}, (0, "b"): {"x": -2, "z": 1}, (3, "a"): {"u": 1, "v": 0.5, "w": 0.2}}


def test_rows_are_of_documents_and_classes_that_both_explain():
    other = {(0, "a"): {"x": 2, "y": 1}, (0, "b"): {"x": 2, "q": 1}, (3, "b"): {"u": 1}, (7, "a"): {"u": 1}}
    rows = similarity_rows("v", BASE, other, 1)
    assert [(row["variant"], row["document"], row["class"]) for row in rows] == [("v", 0, "a"), ("v", 0, "b")]
    assert [row["cosine"] for row in rows] == pytest.approx([1, -4 / 5]) and rows[1]["jaccard"] == 1
    assert [(row["words_base"], row["words_variant"], row["words_both"]) for row in rows] == [(2, 2, 2), (2, 2, 1)]
    # A document has the mean of its classes where they are defined.
    values = document_values(rows, "cosine", [0, 3])
    assert values[0] == pytest.approx(0.1) and math.isnan(values[1])
    assert rows[0]["spearman"] == pytest.approx(1) and math.isnan(rows[1]["spearman"])
    assert document_values(rows, "spearman", [0])[0] == pytest.approx(1)


def explained(noise, seed):
    """Forty documents' weights, the same for all models but for this much noise."""
    random, words = np.random.default_rng(seed), [f"w{index}" for index in range(8)]
    return {
        (document, "a"): dict(
            zip(words, np.random.default_rng(document).normal(size=8) + noise * random.normal(size=8), strict=True)
        )
        for document in range(40)
    }


def test_verdicts_are_against_the_noise_floor():
    base = explained(0, 0)
    models = {NOISE: (0.3, 1), "same": (1e-3, 2), "changed": (1.5, 3)}
    rows = [row for name, model in models.items() for row in similarity_rows(name, base, explained(*model), 3)]
    facts = {"removed_percent": 0.0, "document_accuracy": 0.9, "document_accuracy_drop": 0.0}
    changed = {"removed_percent": 30.0, "document_accuracy": 0.875, "document_accuracy_drop": 0.025}
    summary = summary_rows(rows, {"same": facts, "changed": changed}, seed=0)
    assert summary == summary_rows(rows, {"same": facts, "changed": changed}, seed=0)
    found = {(row["variant"], row["measure"]): row for row in summary}
    assert len(found) == 3 * 4 and {row["documents"] for row in summary} == {40}
    for measure in ("cosine", "spearman", "jaccard", "rbo"):
        noise, same, worse = (found[name, measure] for name in (NOISE, "same", "changed"))
        assert worse["mean"] < noise["mean"] < same["mean"] and noise["difference"] is None
        assert worse["difference"] == pytest.approx(worse["mean"] - noise["mean"])
        assert worse["verdict"] == "less alike than the noise floor" and worse["difference_high"] < 0
        assert same["verdict"] == "more alike than the noise floor" and same["excludes_zero"]
    again = summary_rows(similarity_rows(NOISE, base, explained(0.3, 5), 3)
                         + similarity_rows("v", base, explained(0.3, 6), 3), {}, 0)  # fmt: skip
    assert {row["verdict"] for row in again[4:]} == {"not told apart from the noise floor"}
    text = summary_text(summary, {"base": "dense", "base_facts": facts, "documents": 40, "top_k": 3})
    lines = text.splitlines()
    assert "top-3 Jaccard" in lines[1] and lines[2].split() == ["dense", "0.00", "90.00", "0.00"]
    assert lines[5].split()[:4] == ["changed", "30.00", "87.50", "2.50"] and lines[5].count("]−") == 4
    assert lines[4].count("]+") == 4 and lines[3].startswith(NOISE)
    judged = {"test_metric": "accuracy", "test_value": 0.8, "test_drop": 0.05}
    about = {"base": "dense", "base_facts": judged, "documents": 40, "top_k": 3, "judged_on": "SST-2, dev"}
    lines = summary_text([row | judged for row in summary], about).splitlines()
    assert "accuracy (%), SST-2, dev" in lines[1] and lines[4].split()[:3] == ["same", "0.00", "90.00"]
    assert "80.00  5.00" in lines[4] and lines[2].split() == ["dense", "80.00", "5.00"]
