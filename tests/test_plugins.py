"""Parts of a user's own: the files of CONTRIBUTING trained with by the command line, and what is refused."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from refused import refusal

import gated_bert
from gated_bert.cli import plugin_words
from gated_bert.cli.main import main
from gated_bert.config import ConfigError, GatedBertConfig, parts, plugins, space
from gated_bert.config.methods import METHODS
from gated_bert.models import gate_rules
from gated_bert.models.folder import load_model
from gated_bert.pruning import named_patterns, schedules
from gated_bert.start import import_path, python_command
from gated_bert.support.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ("-d embedded -m tiny --num-layers 1 --d-model 8 --num-heads 2 --dff 16 --train-examples 24 -b 8 -ml 16 -e 3 "
         "-ps 1 -pe 3 -f 0.5 -l 1e-3 --checkpoint-steps 1").split()  # fmt: skip
PARTS = "--criterion depth --criterion-options strength=0.5 --pattern pairs --schedule square --scope global".split()
# Beside the files of CONTRIBUTING: weights that an update changes, and a kill in the middle of a run.
STOP = """
import os
import signal

import numpy as np

from gated_bert import register_pattern
from gated_bert.config.parts import CRITERIA
from gated_bert.pruning.criteria import class_of
from gated_bert.pruning.schedules import CLASSES

Depth, Square = class_of(CRITERIA["depth"]), CLASSES["square"]


def new_kernel(self, layer, keep):
    # What stays makes up for what goes.
    kernel = np.array(layer.raw_kernel)
    return np.where(keep, kernel * np.abs(kernel).sum() / np.abs(kernel * keep).sum(), kernel)


class Stopping(Square):
    def __call__(self, time):
        if os.environ.get("STOP") and time >= 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(time)


Depth.updates_weights, Depth.new_kernel, CLASSES["square"] = True, new_kernel, Stopping
register_pattern("of_stop", lambda config: None)
"""


def examples(path):
    """The Python files that a page of the documentation holds, in order."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)
    return dict(blocks)


@pytest.fixture
def files(tmp_path):
    found = examples("CONTRIBUTING.md") | {"stop.py": STOP}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    # A criterion comes after the gate rule that it needs.
    names = ("dimmed.py", "depth.py", "pairs.py", "square.py", "stop.py")
    assert {*names, "vowels.py", "letters.py"} == found.keys()
    return [tmp_path / name for name in names]


@pytest.fixture
def registries(monkeypatch):
    """Names registered in a test are forgotten after it."""
    tables = (parts.CRITERIA, METHODS, named_patterns.FACTORIES, schedules.CLASSES, gate_rules.GATE_RULES)
    lists = (space.PATTERNS, space.SCHEDULES, parts.REGISTERED)
    before, known, loaded = [dict(table) for table in tables], [list(each) for each in lists], set(plugins._loaded)
    yield
    for table, values in zip(tables, before, strict=True):
        table.clear()
        table.update(values)
    for each, values in zip(lists, known, strict=True):
        each[:] = values
    plugins._loaded.clear()
    plugins._loaded.update(loaded)


def command(*words, status=0, **variables):
    environment = {**os.environ, "PYTHONPATH": import_path(), "OMP_NUM_THREADS": "1", **variables}
    line = python_command("gated_bert", *map(str, words))
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def weights(folder):
    model = load_model(folder / "model").model
    return {variable.path: ops.convert_to_numpy(variable) for variable in model.weights}, model


@pytest.mark.nightly
def test_a_file_each_is_trained_with_killed_resumed_and_shown(tmp_path, files, capfd):
    named = [word for file in files for word in ("--plugin", file)]
    assert re.search(r"--criterion NAME.*depth.*--schedule NAME.*square", command("train", *named, "-h"), re.DOTALL)
    command("train", *named, *PARTS, *TRAIN, "--run-dir", tmp_path / "whole")
    command("train", *named, *PARTS, *TRAIN, "--run-dir", tmp_path / "killed", STOP="1", status=-9)
    assert (tmp_path / "killed" / "checkpoint.npz").is_file() or list((tmp_path / "killed").glob("checkpoint*"))
    # Where the files lie decides nothing: they may have been moved meanwhile.
    moved = tmp_path / "moved"
    moved.mkdir()
    elsewhere = [shutil.move(file, moved / file.name) for file in files]
    named = [word for file in elsewhere for word in ("--plugin", file)]
    command("train", *named, *PARTS, *TRAIN, "--run-dir", tmp_path / "killed", "--resume")
    (one, model), (other, _) = (weights(tmp_path / name) for name in ("whole", "killed"))
    for path, values in one.items():
        np.testing.assert_array_equal(other[path], values, err_msg=path)
    record = json.loads(next((tmp_path / "whole").glob("metadata_*.json")).read_text())
    assert record["config"]["plugins"] == [str(file) for file in files]
    assert record["config"]["criterion_options"] == {"strength": 0.5}
    assert record["label"] == "depth-pairs-global-square" and record["schedule"]["class"] == "Stopping"
    assert abs(record["final"]["sparsity"] - 0.5) < 0.02
    mask = np.concatenate([ops.convert_to_numpy(layer.gates).ravel() for layer in model.gated_layers()])
    assert set(np.unique(mask)) == {0.0, 1.0}, "the folder holds the gates of inference"
    for layer in model.gated_layers(space.ENCODER_ROLES):
        pairs = ops.convert_to_numpy(layer.gates).reshape(-1, 2, layer.gates.shape[1])
        np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    # None of these needs a plug-in, nor does any load one: this process knows none.
    shutil.rmtree(moved)
    both = (str(tmp_path / "whole"), str(tmp_path / "killed"))
    capfd.readouterr()
    assert main(["inspect", str(tmp_path / "whole" / "model")]) == 0
    shown = capfd.readouterr().out
    assert "hidden size 8" in shown and "ffn_output" in shown
    assert main(["compare", *both, "-o", str(tmp_path / "comparison")]) == 0
    assert "depth-pairs-global-square" in (tmp_path / "comparison" / "comparison.csv").read_text()
    assert main(["iou", *both, "-o", str(tmp_path / "iou")]) == 0
    assert "1.000" in capfd.readouterr().out
    assert "depth" not in parts.CRITERIA and "pairs" not in named_patterns.FACTORIES


def load(tmp_path, text, name="part.py"):
    path = tmp_path / name
    path.write_text(text)
    plugins.load_plugins([path])
    return path


def test_a_job_and_a_sweep_know_what_a_file_registers(tmp_path, files, registries, capsys):
    words = ["--plugin", str(files[0]), "--plugin", str(files[1]), *TRAIN, "-o", str(tmp_path / "out")]
    several = ["-p", "depth,magnitude,baseline", "--criterion-options", "strength=2"]
    assert main(["sweep", *words, *several, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "results_depth_" in shown and "results_magnitude_" in shown
    assert "'strnegth' is refused; allowed: strength (did you mean strength?), of the criterion depth" in refusal(
        capsys, "sweep", *words, "-p", "depth", "--criterion-options", "strnegth=2", "--dry-run"
    )
    assert "'strength=11' is refused; allowed: for strength a number from 0 to 10" in refusal(
        capsys, "sweep", *words, "-p", "depth", "--criterion-options", "strength=11", "--dry-run"
    )
    assert "'strength=much' is refused; allowed: for strength a number" in refusal(
        capsys, "sweep", *words, "-p", "depth", "--criterion-options", "strength=much", "--dry-run"
    )
    assert "'strength' is refused; allowed: no option" in refusal(
        capsys, "sweep", *words, "-p", "magnitude", "--criterion-options", "strength=2", "--dry-run"
    )
    yaml = tmp_path / "sweep.yaml"
    yaml.write_text(f"plugins: [{files[2]}]\nmethods: [magnitude]\npattern: pairs\n")
    assert main(["sweep", "--sweep-file", str(yaml), *TRAIN, "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "magnitude-pairs" in capsys.readouterr().out


def test_a_record_names_its_options_and_is_read_again(files, registries):
    plugins.load_plugins(files[:2])
    record = GatedBertConfig(pruning_method="depth", criterion_options={"strength": 3}, plugins=(str(files[0]),))
    again = GatedBertConfig.from_json(record.to_json())
    assert again == record and hash(again) == hash(record)
    assert record.replace(seed=1).criterion_options == {"strength": 3}
    assert gated_bert.pruning.criteria.criterion_of(record).options.strength == 3
    with pytest.raises(ConfigError, match="criterion_options: 'strength=True' is refused"):
        record.replace(criterion_options={"strength": True})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"part.py: no such file; give a Python file"),
        ("x = 1\ndef f(:\n", r"part.py, line 2: SyntaxError: invalid syntax"),
        ("\n\nimport nothing_of_this_name\n", r"part.py, line 3: ModuleNotFoundError: No module named"),
        ("def f():\n    raise KeyError('lost')\n\nf()\n", r"part.py, line 2: KeyError: 'lost'"),
        ("import sys\nsys.exit(3)\n", r"part.py, line 2: SystemExit: 3"),
        ("x = 1\n", r"part.py: it registers nothing"),
        ("from gated_bert import *\nregister_pattern('head', lambda config: Block())\n", r"line 2: .*'head' is taken"),
        ("from gated_bert import *\nregister_schedule('linear', Linear)\n", r"'linear' is taken"),
        ("from gated_bert import *\nregister_criterion('none', Magnitude)\n", r"'none' is taken"),
        ("from gated_bert import *\nregister_criterion('LayerGradCAM', Magnitude)\n", r"'LayerGradCAM' is taken"),
        ("from gated_bert import *\nregister_criterion('a b', Magnitude)\n", r"'a b' is refused; .* letters"),
        ("from gated_bert import *\nregister_criterion('a', Magnitude())\n", r"allowed: a subclass of Criterion"),
        ("from gated_bert import *\nregister_schedule('a', Magnitude)\n", r"allowed: a subclass of Schedule"),
        ("from gated_bert import *\nregister_gate_rule('fixed', GateRule)\n", r"'fixed' is taken"),
        ("from gated_bert import *\nclass C(Criterion):\n    gate_rule = 'none'\nregister_criterion('c', C)\n",
         r"the gate rule 'none' is refused"),
        ("from gated_bert import *\nclass O(CriterionOptions):\n    a: float = option(1.0, 'a')\n"
         "class C(Criterion):\n    Options = O\nregister_criterion('c', C)\n", r"no dataclass"),
        *(("from dataclasses import dataclass\nfrom gated_bert import *\n"
           f"from gated_bert.pruning.criteria.{module} import {base}\n@dataclass(frozen=True)\n"
           f"class O(CriterionOptions):\n    a: float = option(1.0, 'a')\n"
           f"class C({base}):\n    Options = O\nregister_criterion('c', C)\n",
           rf"Options O is refused; allowed: a dataclass on {needed}.Options, which {needed} reads")
          for module, base, needed in (("saliency", "Saliency", "Saliency"), ("saliency", "GradCam", "Saliency"),
                                       ("movement", "Movement", "Movement"), ("wanda", "Wanda", "Calibrated"))),
        ("from dataclasses import dataclass\nfrom gated_bert import *\n@dataclass(frozen=True)\n"
         "class O(CriterionOptions):\n    seed: int = option(1, 'a')\n"
         "class C(Criterion):\n    Options = O\nregister_criterion('c', C)\n", r"'seed' is taken by a field"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_told_in_one_line(tmp_path, capsys, registries, text, message):
    path = tmp_path / "part.py"
    if text is not None:
        path.write_text(text)
    line = refusal(capsys, "train", "--plugin", str(path), "-h")
    assert re.search(message, line), line


def test_no_file_is_no_plugin(capsys):
    for words in (["--plugin", ""], ["--plugin="]):
        assert "--plugin: '' is refused; allowed: a value" in refusal(capsys, "train", *words)


def test_a_plugin_that_a_record_names_is_not_run_by_reading_it(tmp_path, registries):
    marker = tmp_path / "run"
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(marker)!r}, 'w')\n")
    fields = json.loads(GatedBertConfig(pruning_method="magnitude").to_json()) | {"plugins": [str(evil)]}
    GatedBertConfig.from_dict(fields)
    with pytest.raises(ConfigError, match="criterion: 'depth' is refused"):
        GatedBertConfig.from_dict(fields | {"criterion": "depth"})
    run = tmp_path / "stranger"
    run.mkdir()
    metadata = {"method": "depth", "label": "depth", "config": fields | {"criterion": "depth"}, "status": "running",
                "task": {"name": "sst2"}}  # fmt: skip
    (run / "metadata_depth_x.json").write_text(json.dumps(metadata))
    (run / "config.json").write_text(json.dumps(fields))
    readers = (("inspect", run), ("compare", run, "-o", tmp_path / "c"), ("iou", run, run, "-o", tmp_path / "i"),
               ("shrink", run, tmp_path / "s"), ("train", *TRAIN, "-pt", run, "--run-dir", tmp_path / "t"))  # fmt: skip
    for words in readers:
        main([str(word) for word in words])
    assert not marker.exists()
    # What a person names is run.
    with pytest.raises(UserError, match="registers nothing"):
        plugins.load_plugins([evil])
    assert marker.exists()


def test_an_installed_package_offers_a_criterion(tmp_path, registries, monkeypatch):
    (tmp_path / "gated_bert_depths.py").write_text(
        "from gated_bert import Magnitude, register_criterion\n"
        "register_criterion('depths', type('Depths', (Magnitude,), {}))\n"
    )
    about = tmp_path / "gated_bert_depths-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gated-bert-depths\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gated_bert.plugins]\ndepths = gated_bert_depths\n")
    monkeypatch.syspath_prepend(tmp_path)
    # As of a process that has made no record yet.
    plugins._loaded.discard(plugins.GROUP)
    assert GatedBertConfig(pruning_method="depths").criterion == "depths"
    with pytest.raises(ConfigError, match="depthz"):
        GatedBertConfig(pruning_method="depthz")


def test_objects_do_what_names_do(registries, tmp_path):
    """docs/extending.md, run as it is."""
    text = (ROOT / "docs" / "extending.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "docs/extending.md", "exec"), {"__name__": "extending"})


def test_a_command_without_words_names_no_plugin():
    assert plugin_words.named([]) == [] == plugin_words.named(["-e", "--plugin"])
    assert plugin_words.named(["--plugin", "a.py", "-e", "1", "--plugin=b.py"]) == ["a.py", "b.py"]


def test_a_command_comes_from_a_file(tmp_path, files):
    counting = tmp_path / "letters.py"
    assert "letters: 7" in command("letters", "--plugin", counting, "three", "ab")
    assert "letters: 2" in command("letters", f"--plugin={counting}", "ab")
    assert "count the letters" in command("-h", "--plugin", counting)
    assert "letters" in command("letters", "ab", status=2), "without its file there is no such command"


@pytest.mark.nightly
def test_a_task_of_a_file_is_trained_in_jobs_and_judged(tmp_path, files):
    task = tmp_path / "vowels.py"
    tiny = ("-m", "tiny", "--num-layers", "1", "--d-model", "8", "--num-heads", "2", "--dff", "8", "-ml", "16")
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"aeiobcdf")) + "\n")
    words = ("--plugin", task, "-t", "vowels", *tiny, "-e", "1", "-b", "16", "--vocab", vocab)
    command("sweep", *words, "-p", "baseline,magnitude", "-ps", "1", "-pe", "1", "-o", tmp_path / "out")
    record = json.loads(next((tmp_path / "out" / "results_magnitude_vowels").glob("metadata_*.json")).read_text())
    assert record["task"]["labels"] == ["few", "many"] and record["data"]["rows"] == {"train": 64, "dev": 32}
    assert record["data"]["label"] == "Vowels" and record["status"] == "finished"
    model = tmp_path / "out" / "results_magnitude_vowels" / "model"
    judged = command("benchmark", model, "--plugin", task, "-d", "hub", "-o", tmp_path / "judged", "--repeats", "1")
    assert "accuracy" in judged, "its own examples judge it"
    refused = command("train", "-t", "vowels", *tiny, "--vocab", vocab, "--run-dir", tmp_path / "x", status=2)
    assert "vowels" in refused.splitlines()[-1]


def test_an_option_is_read_as_what_its_criterion_declares(tmp_path, capsys):
    """`1` is true of a switch, a number of a number and a text of a text, on a command line and in a file."""
    plugin = tmp_path / "kinds.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from gated_bert import Criterion, CriterionOptions, option, register_criterion\n"
        "@dataclass(frozen=True)\n"
        "class KindsOptions(CriterionOptions):\n"
        "    flag: bool = option(False, 'a switch')\n"
        "    word: str = option('a', 'a text')\n"
        "    count: int = option(3, 'a number', low=0)\n"
        "    share: float = option(0.5, 'a share', low=0, high=2)\n"
        "class Kinds(Criterion):\n"
        "    Options = KindsOptions\n"
        "register_criterion('kinds', Kinds)\n"
    )
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("criterion_options: [flag=1, word=1, count=1, share=1]\n")
    words = ["sweep", "--plugin", str(plugin), "-p", "kinds", "-d", "embedded", "-m", "tiny", "--dry-run"]
    for given in (["--criterion-options", "flag=1,word=1,count=1,share=1"], ["--sweep-file", str(sweep)]):
        assert main([*words, *given]) == 0
        out = capsys.readouterr().out
        for part in ("'flag': True", "'word': '1'", "'count': 1", "'share': 1"):
            assert part in out, given
    assert main([*words, "--criterion-options", "flag=2"]) == 2
    assert "--criterion-options: 'flag=2' is refused" in capsys.readouterr().err
