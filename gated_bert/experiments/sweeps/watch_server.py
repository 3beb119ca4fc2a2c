"""A page on this machine alone that shows the runs of a folder, and changes nothing.

It names no files: runs are called by a key, and what is not one of the addresses below is not there.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gated_bert.experiments.reports.interactive import STYLE, script
from gated_bert.experiments.reports.page import Html, element, html_table, inline_hash, page
from gated_bert.experiments.reports.plots import STRETCH_FROM
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.experiments.sweeps.progress import metric_name, numbers, summed_up
from gated_bert.experiments.sweeps.watching import Watch, WatchedRun
from gated_bert.support.errors import UserError, printable

ADDRESS = "127.0.0.1"
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
"""Any other name was made to lead here by a page from elsewhere (DNS rebinding)."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#882255", "#117733")
_STYLE = """
.bar { width: 12rem; max-width: 30vw; height: 0.7rem; background: #e3e7eb; border-radius: 0.35rem; overflow: hidden; }
.bar div { height: 100%; background: #0072b2; } .finished .bar div, .skipped .bar div { background: #1a7f37; }
.failed .bar div { background: #cf222e; } .failed { color: #a40e26; } .stopped .bar div { background: #bf8700; }
.waiting { color: #6e7781; } td:nth-child(2), td:last-child, th:last-child { text-align: left; }
#lost { display: none; } .lost #lost { display: block; } pre { max-height: 24rem; overflow-y: auto; }
"""


def serve(watch: Watch, port: int) -> None:
    """Shows the runs on a port of 127.0.0.1 until Ctrl-C.

    Args:
        watch: the runs.
        port: the port; 0 takes a free one.

    Raises:
        UserError: the port cannot be used.
    """
    server = make_server(watch, port)
    with server:
        print(f"watching {watch.folder} on http://{ADDRESS}:{server.server_address[1]}/ (Ctrl-C ends)", flush=True)
        server.serve_forever()


def make_server(watch: Watch, port: int) -> ThreadingHTTPServer:
    """The server, which answers nobody but this machine.

    Raises:
        UserError: the port cannot be used.
    """
    try:
        server = _Server((ADDRESS, port), _Handler)
    except OSError as error:
        raise UserError(f"--web: port {port} cannot be used ({error.strerror}); choose another, or 0 for a free one"
                        ) from None  # fmt: skip
    server.answers = _Answers(watch)
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answers: _Answers

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked has gone."""


class _Answers:
    """What each address answers, as media type and bytes."""

    def __init__(self, watch: Watch):
        self.watch = watch
        # One look at a time, whoever asks.
        self._lock = threading.Lock()
        code = f"{script()}{Path(__file__).with_name('watch_page.js').read_text(encoding='utf-8')}"
        self._page = _page(watch.folder, code)
        self.policy = (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {inline_hash(code)}; "
                       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")  # fmt: skip
        self.addresses: dict[str, Callable[[dict[str, list[str]]], tuple[str, bytes] | None]] = {
            "/": lambda query: ("text/html; charset=utf-8", self._page),
            "/state.json": lambda query: _json(self._state()),
            "/curves.json": lambda query: _json(_curves(self.watch, self.watch.look())),
            "/log.json": lambda query: self._log(query.get("run", [""])[0]),
        }

    def answer(self, target: str) -> tuple[str, bytes] | None:
        """What is at an address with its query; None where nothing is."""
        try:
            parts = urlsplit(target)
            query = parse_qs(parts.query)
        except ValueError:
            return None
        found = self.addresses.get(parts.path)
        with self._lock:
            return found(query) if found else None

    def _state(self) -> dict[str, Any]:
        runs = self.watch.look()
        lines = [{"key": run.key, "name": run.name, "state": run.state, "fraction": run.fraction, **numbers(run),
                  "message": printable(str(run.status.get("message") or ""))} for run in runs]  # fmt: skip
        return {"summary": summed_up(runs), "metric": metric_name(runs), "runs": lines}

    def _log(self, key: str) -> tuple[str, bytes] | None:
        run = next((run for run in self.watch.look() if run.key == key), None)
        return None if run is None else _json({"text": self.watch.log(run)})


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "gated_bert", ""
    timeout = 20

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _refuse(self) -> None:
        self._send(405, "text/plain; charset=utf-8", b"read only\n", True, Allow="GET, HEAD")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _answer(self, with_body: bool):
        if not _HOST.fullmatch(self.headers.get("Host", "")):
            self._send(403, "text/plain; charset=utf-8", b"not by this name\n", with_body)
            return
        found = self.server.answers.answer(self.path)
        kind, content = found or ("text/plain; charset=utf-8", b"nothing here\n")
        self._send(200 if found else 404, kind, content, with_body)

    def _send(self, status: int, kind: str, content: bytes, with_body: bool, **more: str):
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store",
                   "Content-Security-Policy": self.server.answers.policy, "X-Content-Type-Options": "nosniff",
                   "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
                   "X-Frame-Options": "DENY", **more}  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *words: object) -> None:
        """Nothing is told of who asks what."""


def _page(folder: Path, code: str) -> bytes:
    heads = ("run", "", "", "epoch", "step", element("span", "metric", id="metric"), "sparsity", "left")
    parts = [element("h1", printable(str(folder))), element("p", id="summary", kind="note"),
             element("p", "No answer: what is shown may be old.", kind="notice", id="lost"),
             Html(html_table(heads, ()).replace("<table>", '<table id="runs">')), element("h2", "Curves"),
             element("div", kind="chart", id="chart"), element("h2", "Logs"), element("div", id="logs")]  # fmt: skip
    return page(f"{printable(folder.name)} · gated_bert", parts, STYLE + _STYLE, code, asks_its_server=True)


def _curves(watch: Watch, runs: list[WatchedRun]) -> list[dict[str, Any]]:
    """What the page draws: the first metric and the loss on the development set, over epochs and over sparsity."""
    tables = [(run, watch.rows(run)) for run in runs]
    columns = dict.fromkeys(name for _, rows in tables for row in rows[:1] for name in row)
    metric = next((name.removeprefix("val_") for name in columns if name.startswith("val_") and name != "val_loss"), "")
    measured = [each for each in ((f"val_{metric}", metric_title(metric), metric_scale(metric)),
                                  ("val_loss", "development loss", 1.0)) if each[0] in columns]  # fmt: skip
    highest = max((row.get("sparsity", 0.0) for _, rows in tables for row in rows), default=0.0)
    views = []
    for across, label, wide in (("epoch", "epoch", 1.0), ("sparsity", "sparsity (%)", 100.0)):
        for column, title, scale in measured:
            lines = []
            for number, (run, rows) in enumerate(tables):
                points = [[wide * row[across], scale * row[column]] for row in rows if {across, column} <= row.keys()]
                if points:
                    lines.append({"name": run.name, "color": _COLOURS[number % len(_COLOURS)], "points": points})
            views.append({"name": f"{title} over {label.partition(' ')[0]}", "x": label, "y": title, "lines": lines,
                          "stretch": across == "sparsity" and highest > STRETCH_FROM})  # fmt: skip
    return views


def _json(values: object) -> tuple[str, bytes]:
    return "application/json; charset=utf-8", json.dumps(values).encode()
