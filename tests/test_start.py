"""Starting: no process imports from the working folder, and every kind of standard stream will do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.models.memory_probe import measure_peak_memory
from gated_bert.experiments.sweeps.jobs import Job, job_command
from gated_bert.experiments.sweeps.slurm import array_script
from gated_bert.start import ROOT, import_path, keras_backend, python_command
from tests.experiments.synthetic_runs import write_run
from tests.marks import nightly

NAMES = ("rich", "yaml", "datasets", "lime", "numpy", "keras", "json", "gated_bert", "pandas", "tensorflow",
         "tokenizers", "argparse", "runpy", "matplotlib", "h5py", "psutil", "ray", "pip", "venv", "config",
         "sitecustomize")  # fmt: skip
RUN = ("-d", "embedded", "-t", "sst2", "-m", "tiny", "-e", "1", "-ml", "16", "-b", "16", "--train-examples", "32",
       "--num-layers", "1")  # fmt: skip
PATHS = ("", os.pathsep, f".{os.pathsep}", None)


@pytest.fixture
def trapped(tmp_path) -> Path:
    """A folder whose modules leave a mark when they are imported."""
    folder = tmp_path / "a model's folder"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(folder / ('imported_' + name))!r}, 'w').close()\n")
    return folder


def in_folder(folder: Path, words, path: str | None = None, **more: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VERBOSE")}
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1", **more}
    environment |= {"PYTHONPATH": path} if path is not None else {}
    return subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=600)  # fmt: skip


def marks(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("imported_*")]


@pytest.mark.parametrize("path", [None, "elsewhere"])
def test_a_command_imports_nothing_from_the_working_folder(trapped, path):
    done = in_folder(trapped, python_command("gated_bert", "sweep", "-e", "0"), path)
    assert (done.returncode, marks(trapped)) == (2, []) and "-e/--epochs" in done.stderr


def test_python_m_imports_no_other_module_from_there(trapped):
    # Python itself looks for the package named after -m in the working folder, and for what runs it.
    for name in ("gated_bert", "runpy"):
        (trapped / f"{name}.py").unlink()
    done = in_folder(trapped, (sys.executable, "-m", "gated_bert", "sweep", "-e", "0"), ROOT)
    assert (done.returncode, marks(trapped)) == (2, []), done.stderr


@pytest.mark.parametrize("path", PATHS)
def test_the_launcher_imports_nothing_from_the_working_folder(trapped, path):
    launcher = Path(ROOT) / "run_experiments.sh"
    done = in_folder(trapped, (launcher, *RUN, "--dry-run"), path)
    assert (done.returncode, marks(trapped)) == (0, []), done.stderr


@pytest.mark.nightly
def test_a_sweep_with_its_jobs_from_a_file_imports_nothing_from_the_working_folder(trapped):
    (trapped / "sweep.yaml").write_text("methods: [baseline]\n")
    done = in_folder(trapped, python_command("gated_bert", "sweep", *RUN, "--sweep-file", "sweep.yaml", "-o", "out"))
    assert (done.returncode, marks(trapped)) == (0, []), done.stdout + done.stderr
    probe = "from pathlib import Path; from gated_bert.experiments.studies.command_process import run_command as run; "
    probe += "raise SystemExit(run(['compare', 'out', '-o', 'again']))"
    done = in_folder(trapped, (sys.executable, "-c", f"import sys; sys.path[0] = {ROOT!r}; {probe}"), os.pathsep + ROOT)
    assert (done.returncode, [name for name in marks(trapped) if name != "imported_sitecustomize"]) == (0, [])


@pytest.mark.nightly
def test_a_slurm_task_imports_nothing_from_the_working_folder(trapped):
    config = GatedBertConfig(model_size="tiny", data="embedded", task="sst2", pruning_method="baseline", epochs=1,
                             max_len=16, batch_size=16, train_examples=32, num_layers=1)  # fmt: skip
    folder = trapped / "results_baseline_sst2"
    folder.mkdir()
    (folder / "job.json").write_text(config.to_json())
    (trapped / "job.sh").write_text(array_script([Job("one", config, folder, job_command(folder))], 1))
    done = in_folder(trapped, ("bash", "job.sh"), SLURM_ARRAY_TASK_ID="0")
    assert done.returncode == 0, (folder / "log.txt").read_text()
    assert marks(trapped) == []


def test_the_process_that_measures_memory_imports_nothing_from_the_working_folder(trapped, monkeypatch):
    monkeypatch.chdir(trapped)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    with pytest.raises(Exception, match="measures its memory failed"):
        measure_peak_memory(trapped / "none.onnx", 1, 8, 1)
    assert marks(trapped) == []


@pytest.mark.nightly
def test_the_workers_of_ray_import_nothing_from_the_working_folder(trapped):
    pytest.importorskip("ray", reason="ray is not installed (pip install 'gated_bert[cluster]')")
    # What a worker unpickles by name is what a module of the working folder would stand in for.
    program = (
        f"import sys; sys.path[0] = {ROOT!r}\n"
        "from pathlib import Path\n"
        "from gated_bert.start import leave_working_folder; leave_working_folder()\n"
        "from gated_bert.config import GatedBertConfig\n"
        "from gated_bert.experiments.sweeps import ray_backend\n"
        "ray_backend.job_memory = lambda config, on_gpu: 2**20\n"
        "configs = [GatedBertConfig(model_size='tiny', data='embedded')]\n"
        "with ray_backend.connected(None, Path('.'), configs, 1):\n"
        "    path = ray_backend.ray.remote(lambda: __import__('sys').path)\n"
        "    print('\\n'.join(ray_backend.ray.get(path.remote())))\n"
    )
    done = in_folder(trapped, (sys.executable, "-c", program))
    assert done.returncode == 0, done.stderr
    assert str(trapped) not in done.stdout.splitlines() and marks(trapped) == []


def test_pythonpath_is_handed_on_without_the_working_folder(trapped, monkeypatch):
    monkeypatch.chdir(trapped)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", ".", str(trapped), "/elsewhere")))
    assert import_path().split(os.pathsep) == [ROOT, "/elsewhere"]


def test_the_own_folder_stays_where_it_is_the_working_folder(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    assert import_path() == ROOT


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "| true"])
@pytest.mark.parametrize("words", ["-h", "sweep -h", "sweep -e 0", "sweep --dry-run -d embedded -m tiny"])
def test_closed_and_full_streams_end_no_command_in_a_traceback(tmp_path, closing, words):
    command = " ".join(f"'{word}'" for word in python_command("gated_bert"))
    done = in_folder(tmp_path, ("bash", "-c", f"set -o pipefail; {command} {words} {closing}"))
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    usual = 2 if words.endswith("-e 0") else 0
    assert done.returncode in {">/dev/full": {2}, "| true": {usual, 1}}.get(closing, {usual})
    if closing == ">/dev/full" and not usual:
        assert done.stderr == "error: the standard output cannot be written (No space left on device)\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", [nightly("ascii"), nightly("latin-1"), "ascii:strict"])
@pytest.mark.nightly
def test_terminals_without_unicode_get_what_they_can_show(tmp_path, encoding):
    place = tmp_path / "r\N{LATIN SMALL LETTER E WITH ACUTE}sultats \N{RIGHTWARDS ARROW}"
    words = python_command("gated_bert", "sweep", *RUN, "-p", "baseline", "-o", place)
    settings = {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(list(map(str, words)), env=os.environ | settings | {"CUDA_VISIBLE_DEVICES": "-1"},
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stdout.decode("latin-1") + done.stderr.decode("latin-1")
    assert b"finished" in done.stdout


@pytest.mark.slow
@pytest.mark.nightly
def test_a_folder_whose_name_is_not_utf8_will_do(tmp_path):
    place = os.fsencode(tmp_path) + b"/r\xe9sultats"
    os.mkdir(place)
    model = place + b"/out/results_baseline_sst2/model"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT}
    for words in (
        ["sweep", *RUN, "-p", "baseline", "-o", place + b"/out"],
        ["sweep", *RUN, "-p", "baseline", "-pt", model, "-o", place + b"/again"],
    ):
        command = [*python_command("gated_bert"), *words]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=600)
        assert done.returncode == 0, (words, done.stderr)
    for words in (
        ["export", model, place + b"/m.onnx"],
        ["quantize", place + b"/m.onnx", place + b"/q.onnx"],
        ["inspect", place + b"/q.onnx", "-o", place + b"/seen"],
    ):
        assert main(list(map(os.fsdecode, words))) == 0
    assert b"report.html" in os.listdir(place + b"/again")


SETTINGS_OF_STRANGERS = {"words": b"nonsense: 3\nbackend: nosuch\ntext.usetex: True\n", "latin-1": b"# \xe9\n"}


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("kind", [*SETTINGS_OF_STRANGERS, "a pipe"])
def test_plots_are_not_set_by_a_file_of_the_working_folder(trapped, kind):
    write_run(trapped / "runs", epochs=2, several=False)
    if kind == "a pipe":
        os.mkfifo(trapped / "matplotlibrc")
    else:
        (trapped / "matplotlibrc").write_bytes(SETTINGS_OF_STRANGERS[kind])
    done = in_folder(trapped, python_command("gated_bert", "compare", "runs", "-o", "out"))
    assert (done.returncode, done.stderr, marks(trapped)) == (0, "", [])
    assert list((trapped / "out").glob("*.png"))


LEAN = """
import sys
from gated_bert.start import leave_working_folder
leave_working_folder()
import keras
print(sorted({"jax", "matplotlib", "pandas", "sklearn"} & sys.modules.keys()), keras.backend.backend())
import matplotlib.pyplot, pandas, sklearn.linear_model
print(pandas.DataFrame({"a": [1]}).to_csv(index=False).split(), sys.modules["keras"].ops.ones(2).shape)
"""


@pytest.mark.parametrize("backend", ["tensorflow", nightly("jax")])
def test_keras_imports_only_what_is_used_and_the_rest_can_be_imported_later(tmp_path, backend):
    pytest.importorskip(backend)
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", LEAN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = ["jax"] if backend == "jax" else []
    assert done.stdout.splitlines() == [f"{used} {backend}", "['a', '1'] (2,)"]


def test_the_backend_is_the_one_that_keras_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert keras_backend() == "tensorflow"
    for text, backend in (('{"backend": "jax"}', "jax"), ("{}", "None"), ("[]", ""), ("{", ""), ("[" * 100_000, "")):
        (tmp_path / "keras.json").write_text(text)
        assert keras_backend() == backend
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert keras_backend() == "tensorflow"


@pytest.mark.nightly
def test_nothing_is_hidden_from_other_threads(tmp_path):
    program = (
        "import threading\n"
        "from gated_bert.start import leave_working_folder\n"
        "leave_working_folder()\n"
        "wait = threading.Event()\n"
        "threading.Thread(target=wait.wait, daemon=True).start()\n"
        "import sys, keras\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT},
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.split() == ["True"], done.stderr
