"""The documentation: the site is built without a warning, links lead somewhere, and what it shows runs."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import gated_bert
from gated_bert.cli.main import COMMANDS
from gated_bert.config.flag_table import SWEEP_FLAGS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results/README.md")
PAGES = sorted(path.relative_to(ROOT) for path in SOURCES)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as the documentation says, in less than a minute."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'gated_bert[docs]'")
    pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings-python is not installed")
    folder, began = tmp_path_factory.mktemp("site"), time.monotonic()
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    assert time.monotonic() - began < 60
    return folder


def read(site: Path, page: str) -> str:
    return (site / page / "index.html").read_text(encoding="utf-8")


def test_every_page_is_in_the_site_and_loads_nothing_from_elsewhere(site):
    for path in PAGES:
        if path.parent.name == "docs" and path.stem != "index":
            assert (site / path.stem / "index.html").is_file(), path
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="([^"]+)"', page.read_text(encoding="utf-8"))
        assert [each for each in loaded if each.startswith(("http:", "https:", "//"))] == [], page


def test_the_notebooks_are_pages_with_what_they_show(site):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page, text = read(site, f"tutorial_{path.stem}"), path.read_text(encoding="utf-8")
        shown = [output.get("data", {}) for cell in json.loads(text)["cells"] for output in cell.get("outputs", ())]
        markups = ["<img" if "image/png" in each else "".join(each.get("text/html", "")) for each in shown]
        for start, there in (("<img", '<img alt="what'), ("<table", "<table>"), ("<iframe", "<iframe srcdoc")):
            assert page.count(there) == sum(start in each for each in markups), (path, start)
        assert re.findall(r'href="[^"]*\.(?:ipynb|md)\b', page) == []


def test_the_commands_are_made_of_the_flags(site):
    page = read(site, "commands")
    for name in COMMANDS:
        assert f'id="{name}"' in page
    assert all(f"<code>{option}</code>" in page for flag in SWEEP_FLAGS for option in flag.options)


def test_the_reference_holds_every_public_name(site):
    page = read(site, "api")
    for name in gated_bert.__all__:
        public = getattr(gated_bert, name)
        if inspect.isclass(public) or inspect.isfunction(public):
            assert f'id="{public.__module__}.{public.__name__}"' in page, name


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = HEADING.findall(FENCED.sub("", text))
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head).strip().lower() for head in heads)
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_anchors_of_the_repository_lead_somewhere(page):
    path = ROOT / page
    for link in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        place = (path.parent / target).resolve() if target else path
        made_when_built = place.parent == ROOT / "docs" and place.name in ("commands.md",)
        assert place.exists() or made_when_built, (page, link)
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place.read_text(encoding="utf-8")), (page, link)


def test_the_readme_is_short_and_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "./run_experiments.sh -d embedded -m tiny -t sst2 -e 8 -b 64 -l 1e-3 -ps 3 -pe 7 -f 0.9 -parallel\n" in text
    assert "./run_tests.sh\n" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 12
    given: dict = {}
    exec(compile(code, "README.md", "exec"), given)
    closed = [float((np.asarray(layer.kernel) == 0).mean()) for layer in given["small"].layers]
    assert closed == pytest.approx([0.75, 0.75], abs=0.01)


def examples() -> dict[str, str]:
    """Name of a public object, or of a method of one → the code in its docstring."""
    found = {}
    for name in gated_bert.__all__:
        public = getattr(gated_bert, name)
        members = vars(public).values() if inspect.isclass(public) else ()
        for each in (public, *(getattr(member, "__func__", member) for member in members)):
            blocks = re.findall(r"```python\n(.*?)```", inspect.getdoc(each) or "", re.DOTALL)
            if blocks and getattr(each, "__module__", "").startswith("gated_bert"):
                found[each.__qualname__] = textwrap.dedent("".join(blocks))
    return found


def test_public_objects_have_examples():
    assert {"GatedBertConfig", "gate", "ungate", "PruningCallback.for_model", "Pruner", "GatedDense", "BertClassifier",
            "DistillationLoss", "shrink", "Linear", "Task"} <= set(examples())  # fmt: skip


@pytest.mark.parametrize("name", sorted(examples()))
def test_examples_of_docstrings_run(name):
    """With what a reader has before: the public names, NumPy, Keras, some data, and a model and its teacher for it."""
    import keras


    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    given = {each: getattr(gated_bert, each) for each in gated_bert.__all__} | {"keras": keras, "np": np, "x": x}
    given |= {"y": x[:, :2], "labels": (x[:, 0] > 0).astype("int32")}
    for model in ("model", "teacher"):
        given[model] = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    if name == "Pruner":
        gated_bert.gate(given["model"])
    code = examples()[name]
    ast.parse(code)
    exec(compile(code, name, "exec"), given)


def git(*words: str) -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def test_the_results_that_are_kept_are_few_tables_and_pictures():
    kept = [ROOT / name for name in git("ls-files", "results") if (ROOT / name).exists()]
    assert {path.suffix for path in kept} <= {".csv", ".png", ".json", ".md"}
    assert len(kept) < 150 and sum(path.stat().st_size for path in kept) < 4e6


def test_a_sweep_into_its_usual_folder_touches_nothing_that_git_holds():
    """What it writes there is ignored, and what it sets aside, tables and plots of the folder itself, is not held."""
    assert [name for name in git("ls-files", "results") if name.count("/") == 1] == ["results/README.md"]
    written = ["results_spt_sst2/model/model.keras", "results_spt_sst2/log.txt", "comparison.csv",
               "comparison_summary.csv", "pruning_methods_comparison_dual_axis.png", "report.html", "sweep.json",
               "tracking.json", "mlflow.db", "mlflow/x/artifacts/report.html", ".lock",
               "saved_results/20260101-000000/comparison.csv"]  # fmt: skip
    places = [f"results/{name}" for name in written]
    assert git("check-ignore", "--no-index", *places) == places
