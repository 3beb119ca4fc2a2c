"""Fixtures for what a checkout does not hold: real data and pretrained weights."""

from __future__ import annotations

import collections
import dataclasses
import functools
import gc
import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What JAX compiles here runs a few times: compiling well costs more than it saves.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
pytest_plugins = ["tests.shared_state", "tests.known_times"]
REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    config.addinivalue_line("markers", "real_data: needs the real GLUE files (GATED_BERT_DATA)")
    config.addinivalue_line("markers", "nltk_data: needs NLTK's tagger and tokeniser (NLTK_DATA)")
    if not hasattr(config, "workerinput") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # What one process of the session has compiled another finds.
        compiled = tempfile.TemporaryDirectory(prefix="gated_bert_compiled_", ignore_cleanup_errors=True)
        config.add_cleanup(compiled.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.hookimpl(tryfirst=True)  # Before pytest leaves out what is nightly.
def pytest_collection_modifyitems(items):
    met = collections.Counter()
    for item in items:
        marker = item.get_closest_marker("daily_every")
        if marker is not None:
            test = item.nodeid.partition("[")[0]
            if met[test] % marker.args[0]:
                item.add_marker("nightly")
            met[test] += 1


def pytest_collection_finish(session):
    """The frameworks' modules, which stay, are no longer searched for garbage, and what tests make less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    # Models and their graphs are garbage in cycles.
    if nextitem is None or nextitem.path != item.path:
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def small_scale(request):
    """Runs are evaluated on 96 of the embedded development examples and their pictures are blank, in this process.

    Both are much of the time of a run of some steps. A module that looks at them has `FULL_SCALE = True`; one
    that has `is_drawn` gets small pictures.
    """
    if getattr(request.module, "FULL_SCALE", False):
        yield
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from gated_bert.experiments.reports import drawing
    from gated_bert.tasks import embedded

    embedded.embedded_vocabulary()  # Of the words of all examples.
    fewer = {name: dataclasses.replace(recipe, dev=96) for name, recipe in embedded.RECIPES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 40)
        if not hasattr(request.module, "is_drawn"):
            patch.setattr(FigureCanvasAgg, "draw", FigureCanvasAgg.get_renderer)
        patch.setattr(embedded, "RECIPES", fewer)
        patch.setattr(embedded, "_all_examples", functools.cache(embedded._all_examples.__wrapped__))
        yield


def data_folder() -> Path:
    given = os.environ.get("GATED_BERT_DATA")
    return Path(given).expanduser() if given else REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with `glue/` and `bert/vocab.txt`."""
    folder = data_folder()
    if not (folder / "glue").is_dir():
        pytest.skip(f"no real data in {folder}: set GATED_BERT_DATA to a folder with glue/ and bert/vocab.txt in it")
    return folder.resolve()


@pytest.fixture(scope="session")
def nltk_data():
    """NLTK's data on its search path, to which `nltk_data/` beside the real data is added."""
    nltk = pytest.importorskip("nltk")
    from gated_bert.explain.pos import check_data
    from gated_bert.support.errors import UserError

    nltk.data.path.append(str(data_folder() / "nltk_data"))
    try:
        check_data()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of sentence-transformers/all-MiniLM-L6-v2."""
    given = os.environ.get("GATED_BERT_MINILM")
    folder = Path(given or "~/.cache/gated_bert/all-MiniLM-L6-v2").expanduser()
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no all-MiniLM-L6-v2 in {folder}: set GATED_BERT_MINILM to its folder")
    return folder.resolve()
