"""The clients that people run: optimum, and transformers.js in Node and in Chromium; each loads a folder of
`gated-bert export MODEL FOLDER --format optimum` and gives probabilities. `tests/clients/install.sh` installs them."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

PROGRAMS = Path(__file__).resolve().parents[1] / "tests" / "clients"
INSTALLED = PROGRAMS.parents[1] / ".clients"
FILES = {"fp32": "model.onnx", "q8": "model_quantized.onnx"}
"""What transformers.js calls a precision → the file under `onnx/` that it stands for."""
SECONDS = 300


class Missing(Exception):
    """A client that is not installed."""


def optimum(folder: Path, texts: Sequence[str], precision: str) -> np.ndarray:
    """Probabilities [texts, classes] of optimum's pipeline, a text at a time.

    Raises:
        Missing: there is no optimum, or no PyTorch, which it needs.
    """
    if not (INSTALLED / "python" / "optimum").is_dir() or importlib.util.find_spec("torch") is None:
        raise Missing("no optimum or no torch: tests/clients/install.sh")
    path = os.pathsep.join([str(INSTALLED / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    offline = {"HF_HUB_OFFLINE": "1", "USE_TF": "0", "PYTHONPATH": path}
    return _run([sys.executable, PROGRAMS / "in_optimum.py"], folder, texts, FILES[precision], offline)


def node(folder: Path, texts: Sequence[str], precision: str) -> np.ndarray:
    """Probabilities [texts, classes] of transformers.js in Node.

    Raises:
        Missing: there is no Node, or no transformers.js.
    """
    program = shutil.which("node")
    if program is None:
        raise Missing("no Node: apt install nodejs npm")
    _check_npm()
    return _run([program, PROGRAMS / "in_node.mjs"], folder, texts, precision, {})


def browser(folder: Path, texts: Sequence[str], precision: str) -> np.ndarray:
    """Probabilities [texts, classes] of transformers.js in Chromium, all of whose requests this process answers.

    Raises:
        Missing: there is no Chromium, or no playwright, which steers it, or no transformers.js.
        RuntimeError: the page complained, or asked another host.
    """
    _check_npm()
    if importlib.util.find_spec("playwright") is None:
        raise Missing("no playwright: pip install playwright")
    from playwright import sync_api

    with tempfile.TemporaryDirectory() as place, sync_api.sync_playwright() as started:
        address, close = _serve(Path(place), folder, texts)
        found = shutil.which("chromium") or shutil.which("google-chrome")
        faults: list[str] = []
        try:
            try:
                opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"] * (os.geteuid() == 0))
            except sync_api.Error as error:
                raise Missing("no Chromium: apt install chromium, or playwright install chromium") from error
            page = opened.new_page()
            page.set_default_timeout(1000 * SECONDS)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("request", lambda each: each.url.startswith((address, "data:", "blob:")) or faults.append(each.url))
            page.goto(f"{address}/in_browser.html")
            page.wait_for_function("() => Boolean(window.probabilities)")
            rows = page.evaluate("([folder, dtype]) => window.probabilities(folder, dtype)", [folder.name, precision])
            opened.close()
        finally:
            close()
    if faults:
        raise RuntimeError(f"{folder}: {faults[0]}")
    return np.array(rows)


CLIENTS: dict[str, Callable[[Path, Sequence[str], str], np.ndarray]] = {
    "optimum": optimum, "transformers.js in Node": node, "transformers.js in Chromium": browser,
}  # fmt: skip


def _check_npm():
    if not (INSTALLED / "node_modules" / "@huggingface" / "transformers").is_dir():
        raise Missing("no transformers.js: tests/clients/install.sh")


def _run(command: list, folder: Path, texts: Sequence[str], name: str, environment: dict[str, str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "texts.json"
        file.write_text(json.dumps(list(texts)), encoding="utf-8")
        done = subprocess.run([*map(str, command), str(folder), str(file), name], env=os.environ | environment,
                              capture_output=True, text=True, timeout=SECONDS)  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return np.array(json.loads(done.stdout.splitlines()[-1]))


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript",
                      ".wasm": "application/wasm"}  # fmt: skip

    def log_message(self, format: str, *words: object) -> None:
        """Nothing is told of who asks what."""


def _serve(place: Path, folder: Path, texts: Sequence[str]) -> tuple[str, Callable[[], None]]:
    """Serves the page, what it imports, the model and the texts; its address, and what ends it."""
    (place / "models").mkdir()
    links = {"models/" + folder.name: folder.resolve(), "node_modules": INSTALLED / "node_modules",
             "in_browser.html": PROGRAMS / "in_browser.html", "classify.mjs": PROGRAMS / "classify.mjs"}  # fmt: skip
    for name, target in links.items():
        (place / name).symlink_to(target)
    (place / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(place)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def close():
        server.shutdown()
        server.server_close()

    return f"http://127.0.0.1:{server.server_address[1]}", close
