"""Every page: what comes from data is text, whatever it holds, and every link leads to a file beside the page."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from gated_bert.experiments.explanations.explanation_folder import write_views
from gated_bert.experiments.explanations.explanation_page import explanation_page
from gated_bert.experiments.explanations.sp_lime_pick import pick_documents
from gated_bert.experiments.reports.compare import compare
from gated_bert.experiments.reports.page import element, folded, html_image, html_table, link, note, page
from gated_bert.experiments.reports.plots import plot_run
from gated_bert.experiments.reports.results import Failure, read_run
from gated_bert.experiments.studies import pipeline_report
from gated_bert.experiments.studies.pipeline_plan import Pipeline
from tests.experiments.explained_folders import write_folder
from tests.experiments.synthetic_runs import write_run

EVIL = ('<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "&lt;b&gt; & <b>",
        "</style><script>", "javascript:alert(1)", "</title><h1>", "<!-- ", "]]><svg/onload=x>", "{{7*7}}",
        "\udce9<i>")  # fmt: skip
ALL, PRINTED = " ".join(EVIL), " ".join(EVIL[:-1])
TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span", "b", "a", "img",
        "table", "tr", "th", "td", "details", "summary", "pre", "code", "mark", "script"}  # fmt: skip
ATTRIBUTES = {"class", "style", "alt", "src", "href", "title", "lang", "charset", "name", "content", "http-equiv",
              "data-chart"}


class Parsed(HTMLParser):
    """A page as a browser sees it: elements, attributes, text and what is no element."""

    def __init__(self, content: bytes):
        super().__init__()
        self.tags, self.attributes, self.text, self.others = [], [], [], []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.others.append(data)

    def unknown_decl(self, data):
        self.others.append(data)


def check(content: bytes) -> Parsed:
    """Finds nothing in a page but what its template has."""
    parsed = Parsed(content)
    assert set(parsed.tags) <= TAGS and not parsed.others
    assert parsed.tags.count("style") == parsed.tags.count("title") == parsed.tags.count("h1") == 1
    for tag, name, value in parsed.attributes:
        assert name in ATTRIBUTES, (tag, name)
        if name == "src":
            assert value.startswith("data:image/png;base64,") and tag == "img"
        if name == "href":
            assert value.startswith("./") and not set(value) & set("<>\"' &:?#")
        if name == "style":
            assert value.startswith("background: rgba(") and value.count(";") == 0
    return parsed


@pytest.mark.parametrize("evil", (*EVIL, ALL))
def test_the_parts_of_pages_escape_what_they_are_given(evil):
    parts = [element("h1", evil), evil, note(evil, element("b", evil)), html_table([evil], [[evil], [evil]], evil),
             html_image(b"", evil), folded(evil, evil), link(evil, evil), link(Path("..") / evil, evil)]  # fmt: skip
    parsed = check(page(evil, parts))
    shown = evil.encode("utf-8", "backslashreplace").decode()
    assert sum(shown in text for text in ["".join(parsed.text)]) == 1
    assert "".join(parsed.text).count(shown) >= 11
    links = [value for _, name, value in parsed.attributes if name == "href"]
    assert os.fsdecode(unquote(links[0], errors="surrogateescape")) == "./" + Path(evil).as_posix()


def test_the_report_of_runs(tmp_path):
    """All parts of the records, the logs and the folders' names."""
    for number, method in enumerate(("magnitude", "baseline")):
        folder = write_run(tmp_path, method, epochs=2, seed=number)
        path = next(folder.glob("metadata_*.json"))
        evil = ALL.replace("$", "")
        metadata = json.loads(path.read_text())
        metadata |= {"label": f"{evil} {method}", "status": evil, "versions": {evil: evil}, "hardware": {evil: [evil]},
                     "parameters": {evil: 3}}  # fmt: skip
        metadata["task"] |= {"title": evil, "name": evil}
        metadata["data"] |= {"label": f"partial {evil}", "partial": True, "rows": {evil: 3}}
        metadata["config"] |= {"data": evil, "model_size": evil, evil: {evil: number}, "schedule": evil, "task": evil}
        path.write_text(json.dumps(metadata))
        folder.rename(tmp_path / f"results_{evil.replace('/', '_')[:80]}{number}")
    for name in ("results_<script>x", 'results_"><img src=x>'):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": "failed", "job": ALL, "message": ALL}))
        (tmp_path / name / "log.txt").write_text(ALL, errors="replace")
    (tmp_path / "results_<b>odd").mkdir()
    (tmp_path / "results_<b>odd" / "results_a_20250101.csv").write_text(f"{ALL}\n", errors="replace")
    compare([tmp_path], tmp_path / "out", say=lambda line: None, failures=[Failure(ALL, ALL, ALL)])
    parsed = check((tmp_path / "out/report.html").read_bytes())
    assert "".join(parsed.text).count("<script>alert(1)</script>") > 20


def documents(evil: str) -> dict:
    word = {"word": evil, "weight": -0.5, "positions": [0, 3]}
    return {"document": evil, "text": f"{evil} {evil}", "label": evil, "predicted": evil, "probabilities": {evil: 0.7},
            "explanations": [{"class": evil, "intercept": 0.1, "fidelity": 0.9, "words": [word]}]}  # fmt: skip


@pytest.mark.parametrize("evil", (*EVIL, ALL))
def test_the_page_of_explanations(evil):
    parsed = check(explanation_page(evil, evil, {evil: [documents(evil)], "": [documents(evil) | {"label": None}]}))
    assert "document " + evil.encode("utf-8", "backslashreplace").decode() in "".join(parsed.text)


def test_pages_of_a_foreign_folder_of_explanations(tmp_path, capsys):
    folder = write_folder(tmp_path / "foreign", data=PRINTED, model=f"gone/{PRINTED}", labels=[PRINTED, "b"])
    line = documents(PRINTED) | {"document": 1}
    (folder / "documents.jsonl").write_text(json.dumps(line) + "\n")
    pick_documents(folder, tmp_path / "out", 1, tmp_path / "picked")
    write_views(folder, PRINTED, PRINTED)
    for path in ("out/sp_lime.html", "picked/explanations.html", "foreign/explanations.html"):
        assert "<script>alert(1)</script>" in "".join(check((tmp_path / path).read_bytes()).text)


def test_the_report_of_a_pipeline(tmp_path, monkeypatch):
    out = tmp_path / ALL.replace("/", "_")[:60]
    for name in ("similarity", "pos", "students", "reports", f"similarity/explanations/{'<b>'}"):
        (out / name).mkdir(parents=True, exist_ok=True)
    (out / "similarity/explanations/<b>/explanations.html").write_text("")
    (out / "similarity/similarity.json").write_text(json.dumps({"data": ALL, "top_k": 5, "documents": 3}))
    quoted = '"' + ALL.replace('"', '""') + '"'
    quoted = quoted.encode("utf-8", "replace").decode()
    (out / "pos/pos.csv").write_text(f"model,tagset,group,share\n{quoted},penn,{quoted},0.5\n")
    (out / "pos/pos_tests.csv").write_text(f"model,tagset,p_value\n{quoted},penn,0.5\n")
    (out / "students/students_summary.csv").write_text(
        f"student,parameters,accuracy_mean,accuracy_low,accuracy_high,accuracy_verdict\n{quoted},10,0.5,0.4,0.6,{quoted}\n"
    )
    measures = {}
    for measure in pipeline_report.MEASURES:
        measures |= {measure: 0.5, f"{measure}_low": 0.4, f"{measure}_high": 0.6, f"{measure}_verdict": ALL}
    row = {"model": "<b>", "kind": ALL, "level": 0.0, "form": "onnx", "metric": ALL, "value": 50.0,
           "metric_change": 0.1, "size_bytes": 10, "latency_ms": 1.0, **measures}  # fmt: skip
    rows = [row, row | {"model": ALL}]
    monkeypatch.setattr(pipeline_report, "model_rows", lambda pipeline: rows)
    monkeypatch.setattr(pipeline_report, "report_figure", lambda rows, about: None)
    monkeypatch.setattr(pipeline_report, "png", lambda figure: b"png")
    pipeline = Pipeline(out, (), (), None, ("embedded",), 1, {})
    pipeline_report.write_report(pipeline, {ALL: {"seconds": 3, "words": [ALL]}})
    parsed = check((out / "reports/report.html").read_bytes())
    assert "".join(parsed.text).count("<script>alert(1)</script>") >= 10
    assert "./../similarity/explanations/%3Cb%3E/explanations.html" in {value for _, _, value in parsed.attributes}


def test_plots_are_named_by_what_the_run_is(tmp_path):
    run = read_run(write_run(tmp_path, "magnitude", epochs=1))
    assert all("<" not in path.name for path in plot_run(run))
