"""Pages in headless Chromium: what is drawn, hovered over, switched, sorted and printed; nothing else is run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading

import pytest

from gated_bert.experiments.reports.report import write_report
from gated_bert.experiments.reports.results import find_runs, read_runs
from gated_bert.experiments.sweeps.watch_server import make_server
from gated_bert.experiments.sweeps.watching import Watch
from tests.experiments.synthetic_runs import write_run
from tests.experiments.test_pages import ALL
from tests.experiments.test_watching import write_status

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def browser():
    """Chromium: that of the system, or the one that playwright has fetched."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as started:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"] * (os.geteuid() == 0))
        except playwright.Error:
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """`visit(address, width)` opens a page that must neither complain, nor open a dialogue, nor load from elsewhere."""
    with contextlib.ExitStack() as stack:
        faults = []

        def go(address, width=1200):
            page = browser.new_page(viewport={"width": width, "height": 900})
            stack.callback(page.close)
            page.on("console", lambda message: faults.append(message.text))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: faults.append(dialog.message))
            own = ("data:", "/".join(address.split("/", 3)[:3]))
            page.on("request", lambda each: each.url.startswith(own) or faults.append(each.url))
            page.goto(address)
            return page

        yield go
        assert faults == []


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for method in ("baseline", "magnitude", "spt"):
        for seed in (1, 2, 3):
            write_run(folder / "runs", method, seed=seed, epochs=9, steps=(50, 80, 90, 95, 98, 99.5))
    path = write_report(folder, read_runs(find_runs(folder / "runs"))[0])
    assert path.stat().st_size < 2e6
    return path.as_uri()


def test_curves_are_hovered_over_and_methods_switched_off_and_on(report, visit):
    page = visit(report)
    chart = page.locator(".chart").first
    assert chart.locator("path").count() == 2 and chart.locator(".legend button").count() == 3
    point = chart.locator("circle[fill='#009E73']").nth(4)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    said = chart.locator(".tip tspan").all_text_contents()
    assert said[0] == "spt" and said[1].startswith("accuracy (%): ") and said[2].startswith("sparsity (%): ")
    chart.get_by_role("button", name="spt").click()
    assert chart.locator("path").count() == 1
    assert chart.get_by_role("button", name="spt").get_attribute("aria-pressed") == "false"
    chart.get_by_role("button", name="development loss over epochs").click()
    assert chart.locator("path").count() == 2, "the method stays off, the baseline is a curve of its own"
    chart.get_by_role("button", name="spt").click()
    assert chart.locator("path").count() == 3


def test_the_axis_near_a_hundred_per_cent_is_stretched_or_not(report, visit):
    page = visit(report)
    chart = page.locator(".chart").first

    def places():
        return [float(circle.get_attribute("cx")) for circle in chart.locator("circle[fill='#0072B2']").all()]

    stretched = places()
    chart.get_by_role("button", name="log axis near 100 %").click()
    plain = places()
    assert len(plain) == len(stretched) and stretched[-1] - stretched[-2] > plain[-1] - plain[-2]
    assert stretched[2] - stretched[1] < plain[2] - plain[1]


def test_tables_are_sorted_by_numbers(report, visit):
    page = visit(report)
    table = page.locator("table.sortable").first
    head = table.locator("th").nth(2)

    def column():
        return [float(text.split()[0]) for text in table.locator("td:nth-child(3)").all_text_contents()]

    head.click()
    assert column() == sorted(column(), reverse=True) and head.get_attribute("aria-sort") == "descending"
    head.press("Enter")
    assert column() == sorted(column()) and head.get_attribute("aria-sort") == "ascending"


def test_as_many_points_are_drawn_as_there_are(report, visit):
    """More than a function takes as arguments."""
    found = visit(report).evaluate("""() => {
      const points = Array.from({length: 200000}, (_, index) => [index, index % 7]);
      const host = document.body.appendChild(document.createElement("div"));
      charts.draw(host, [{name: "a", x: "x", y: "y", lines: [{name: "a", color: "#000", points}]}]);
      return host.querySelectorAll("svg circle").length;
    }""")
    assert found >= 200000


@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_fits_a_window_and_a_sheet(report, visit, width):
    page = visit(report, width)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.emulate_media(media="print")
    assert page.locator(".choice").first.is_hidden() and page.locator(".chart path").first.is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_what_comes_from_records_runs_nothing(tmp_path, visit):
    folder = write_run(tmp_path / "runs", "magnitude", epochs=3)
    path = next(folder.glob("metadata_*.json"))
    metadata = json.loads(path.read_text())
    name = ALL.encode("utf-8", "replace").decode()
    path.write_text(json.dumps(metadata | {"label": name}))
    page = visit(write_report(tmp_path, read_runs(find_runs(tmp_path / "runs"))[0]).as_uri())
    assert page.locator(".legend button").first.inner_text().strip().startswith("<script>alert(1)</script>")


def test_the_live_page_follows_a_sweep(tmp_path, visit):
    folder = write_run(tmp_path, "spt", epochs=2, status="running", several=False)
    write_status(folder, state="running", epoch=1, epochs=4, step=1, steps=2, metric=0.5, metric_name="accuracy")
    message = ALL.encode("utf-8", "replace").decode()
    write_status(tmp_path / "results_<img src=x onerror=alert(1)>", state="failed", message=message)
    server = make_server(Watch(tmp_path), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = visit(f"http://127.0.0.1:{server.server_address[1]}/")
        page.wait_for_selector(".chart path")
        page.get_by_text("0 of 2 finished, 1 failed, 1 running").wait_for()
        bar = page.locator("tr.running .bar")
        assert bar.get_attribute("aria-valuenow") == "12"
        page.locator("details", has_text="spt_sst2").locator("summary").click()
        page.get_by_text("synthetic log of spt").wait_for()
        (folder / "log.txt").write_text("another <b>line</b>\n")
        write_status(folder, state="finished", epoch=4, epochs=4, metric=0.75, metric_name="accuracy", sparsity=0.5)
        page.get_by_text("1 of 2 finished, 1 failed").wait_for(timeout=10000)
        page.get_by_text("another <b>line</b>").wait_for(timeout=10000)
        assert page.locator("tr.finished .bar").get_attribute("aria-valuenow") == "100"
        assert page.locator("img, b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        server.shutdown()
        server.server_close()


def test_the_live_page_says_when_nobody_answers_any_more(tmp_path, browser):
    write_status(tmp_path / "results_spt_sst2", state="running")
    server = make_server(Watch(tmp_path), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
    page.get_by_text("1 running").wait_for()
    assert page.locator("#lost").is_hidden()
    server.shutdown()
    server.server_close()
    page.locator("#lost").wait_for(state="visible", timeout=10000)
    page.close()
