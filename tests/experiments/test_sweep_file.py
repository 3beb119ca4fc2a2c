"""The sweep file: which runs it names, what wins over it, what it refuses; the dry run and its estimates."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from synthetic_runs import write_run

from gated_bert.cli import main as cli
from gated_bert.cli.sweep_commands import FLAGS, read_plan
from gated_bert.experiments.reports.aggregate import dense_baseline, group_runs
from gated_bert.experiments.reports.results import find_runs, read_runs
from gated_bert.experiments.sweeps.plan_cost import read_paces
from gated_bert.experiments.sweeps.resources import job_memory, kept_disk, working_disk
from gated_bert.support.machine import GIB
from tests.refused import refusal

EXAMPLE = Path(__file__).resolve().parents[2] / "configs" / "sweep.yaml"
LAUGHS = "{key}  - &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"  - &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)) + "{value}"  # fmt: skip
"""Lists that would be 3.5 billion words if they were written out."""
GRID = """
methods: [magnitude, baseline]
tasks: [sst2, mrpc]
sizes: [tiny, base]
sparsities: [0.5, 0.914]
seeds: [1, 2]
data: embedded
epochs: 8
learning_rate: 2e-5   # which YAML 1.1 takes for text
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    for name in ("BENCHMARK_EPOCHS", "VERBOSE", "GATED_BERT_DATA", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def planned(text: str, **typed):
    Path("sweep.yaml").write_text(text)
    return read_plan({"sweep_file": "sweep.yaml", **typed}, {}, {})


def test_every_combination_is_one_run_and_the_dense_one_is_not_repeated():
    plan = planned(GRID)
    pruned = {
        f"results_magnitude_{task}_{size}_sparsity{sparsity}_seed{seed}"
        for task, size, sparsity, seed in itertools.product(("sst2", "mrpc"), ("tiny", "base"), ("50", "91.4"), (1, 2))
    }
    dense = {
        f"results_baseline_{task}_{size}_seed{seed}"
        for task, size, seed in itertools.product(("sst2", "mrpc"), ("tiny", "base"), (1, 2))
    }
    assert [job.folder.name for job in plan.jobs[:2]] == [
        "results_magnitude_sst2_tiny_sparsity50_seed1", "results_baseline_sst2_tiny_seed1"]  # fmt: skip
    assert len(plan.jobs) == 24 and {job.folder.name for job in plan.jobs} == pruned | dense
    (job,) = (job for job in plan.jobs if job.folder.name == "results_magnitude_mrpc_base_sparsity91.4_seed2")
    config = job.config
    assert (config.task, config.model_size, config.end_sparsity, config.seed) == ("mrpc", "base", 0.914, 2)
    assert (config.epochs, config.learning_rate, config.pruning_end_epoch) == (8, 2e-5, 8)
    assert job.name == "magnitude mrpc base sparsity91.4 seed 2"
    assert {job.config.end_sparsity for job in plan.jobs if job.config.pruning_method == "baseline"} == {0.99}


def test_folders_are_named_as_ever_where_nothing_differs():
    plan = planned("methods: spt\nsizes: [tiny]\nsparsities: 0.9\nseeds: [7]\ndata: embedded")
    assert [str(job.folder) for job in plan.jobs] == ["results/results_spt_sst2"]
    assert plan.jobs[0].config.schedule == "linear", "as an -f does"


def test_any_other_field_is_a_dimension_too():
    plan = planned("methods: magnitude\ndata: embedded\nblock_size: [16x16, 32]\nlearning_rate: [1e-3, 5e-4]\n"
                   "pattern: block\nsparsity_steps: [10, 10, 50]\nclip_norm: none")  # fmt: skip
    names = [job.folder.name.partition("sst2_")[2] for job in plan.jobs]
    assert names == ["block_size16x16_learning_rate0.001", "block_size16x16_learning_rate0.0005",
                     "block_size32x32_learning_rate0.001", "block_size32x32_learning_rate0.0005"]  # fmt: skip
    config = plan.jobs[-1].config
    assert (config.block_size, config.learning_rate, config.clip_norm) == ((32, 32), 5e-4, None)
    assert config.sparsity_steps == (10.0, 10.0, 50.0)


@pytest.mark.parametrize(
    ("methods", "grid", "labels"),
    [
        ("[taylor]", "pruning_type: [1, 6]\ntilesparsity_variant: code",
         ["taylor-head_dim-code-layer-linear", "taylor-k_tile-kn-code-layer-linear"]),
        ("[baseline, taylor]", "pruning_type: [0, 8]\ntilesparsity_variant: code",
         ["baseline", "taylor-head-code-layer-linear", "taylor-tile-kn-code-global-linear"]),
        ("[baseline, taylor]", "pruning_type: 0\ntilesparsity_variant: [readme, code]",
         ["baseline", "taylor-head-layer-linear", "taylor-head-code-layer-linear"]),
        ("magnitude", "pattern: [tile, tile_element]\ntile_dims: kn\nsparsity_per_dim: true",
         ["magnitude-tile-kn-layer-linear", "magnitude-tile_element-kn-layer-linear"]),
        ("[baseline, GlobalMagAct]", "activation_variant: [default, published]",
         ["baseline", "GlobalMagAct", "GlobalMagAct-published"]),
    ],
)  # fmt: skip
def test_a_field_that_only_makes_sense_beside_a_dimension(methods, grid, labels):
    plan = planned(f"methods: {methods}\ndata: embedded\nsizes: tiny\n{grid}")
    assert sorted(job.config.label for job in plan.jobs) == sorted(labels)
    assert len({job.folder for job in plan.jobs}) == len(labels)


def test_what_is_typed_wins():
    plan = planned(GRID, model_size="small", seed=5, tasks=("rte",), end_sparsity=0.7)
    assert [job.folder.name for job in plan.jobs] == ["results_magnitude_rte", "results_baseline_rte"]
    config = plan.jobs[0].config
    assert (config.model_size, config.seed, config.end_sparsity, config.epochs) == ("small", 5, 0.7, 8)
    assert {job.config.criterion for job in planned(GRID, criterion="random").jobs} == {"random"}
    epochs = "methods: spt\ndata: embedded\nepochs: [4, 8]"
    Path("sweep.yaml").write_text(epochs)
    (job,) = read_plan({"sweep_file": "sweep.yaml"}, {}, {"BENCHMARK_EPOCHS": "2"}).jobs
    assert job.config.epochs == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methodz: [spt]", "sweep.yaml: the key 'methodz' is refused; allowed: methods, tasks, seeds, sizes, "
         "sparsities, and other flags of a run by their names, e.g. epochs, batch_size (did you mean methods?)"),
        ("resume: true", "sweep.yaml: the key 'resume' is refused"),
        ("seed: 3", "(did you mean seeds?)"),
        ("methods: [spt, movment]", "sweep.yaml: methods: 'movment' is refused; allowed: baseline, magnitude"),
        ("methods: movment", "(did you mean movement?)"),
        ("tasks: sst", "sweep.yaml: tasks: 'sst' is refused"),
        ("tasks: [[sst2]]", "sweep.yaml: tasks: 'a list of lists' is refused; allowed: a value, or a list of values"),
        ("sizes: []", "sweep.yaml: sizes: [] is refused; allowed: a value: tiny, small"),
        ("sizes: [tiny, huge]", "sweep.yaml: sizes: 'huge' is refused; allowed: tiny, small"),
        ("sizes: tiny\nmodel_size: base", "the key 'model_size' is refused; allowed: once, and 'sizes' is there"),
        ("epochs: 3\nepochs: 4", "the key 'epochs' is refused; allowed: once"),
        ("epochs: many", "sweep.yaml: epochs: 'many' is refused; allowed: a whole number from 0 up"),
        ("epochs: 2.5", "sweep.yaml: epochs: '2.5' is refused; allowed: a whole number from 0 up"),
        ("epochs: {first: 3}", "sweep.yaml: epochs: 'a mapping' is refused"),
        ("epochs:", "sweep.yaml: epochs: '' is refused; allowed: a value: training epochs"),
        ("epochs: [4, null]", "sweep.yaml: epochs: ['4', 'null'] is refused"),
        ("sparsities: [50, 90]", "sweep.yaml: sparsities: 50.0 is refused; allowed: a number from 0 to 1 (did you mean "
         "0.5?)"),
        ("sparsities: [0.5, 0.50]", "sweep.yaml: sparsities: 0.5 is refused; allowed: each value once"),
        ("seeds: [1, 2, 1]", "sweep.yaml: seeds: '1' is refused; allowed: each value once"),
        ("seeds: [1, x]", "sweep.yaml: seeds: 'x' is refused; allowed: a whole number"),
        ("pretrained: [a/bert, b/bert]", "two runs would share this folder"),
        ("data: nowhere", "sweep.yaml: data: 'nowhere' is refused"),
        ("output: [a, b]", "sweep.yaml: output: 'a, b' is refused; allowed: one folder"),
        ("criterion: spt\nmethods: magnitude", "sweep.yaml: criterion: names one point instead of sweep.yaml: methods"),
        ("methods: spt\n tasks: [", "--sweep-file: sweep.yaml, line 2: no valid YAML"),
        ("epochs: " + "[" * 100_000, "--sweep-file: sweep.yaml: nested too deep"),
        ("epochs: 1\n? [seeds, tasks]\n: 3", "sweep.yaml, line 2: a key that is a sequence; allowed: names of flags"),
        ("- spt", "--sweep-file: sweep.yaml: holds no keys with values"),
        ("", "--sweep-file: sweep.yaml: holds no keys with values"),
        ("methods: " + "[" * 20_000 + "]" * 20_000, "--sweep-file: sweep.yaml: nested too deep"),
        ("? [spt]\n: 1", "--sweep-file: sweep.yaml, line 1: a key that is a sequence"),
        (LAUGHS.format(key="? \n", value="\n: 1\n"), "line 2: a key that is a sequence"),
        (LAUGHS.format(key="methods:\n", value="\n"), "is refused; allowed: a value, or a list of values"),
        (f"methods: spt # {'x' * 2**20}", "bytes; allowed: at most 1,048,576"),
        ('"\\e]0;owned\\a": 1', "the key '\\x1b]0;owned\\x07' is refused"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line_that_names_the_file(capsys, text, message):
    Path("sweep.yaml").write_text(text)
    assert message in refusal(capsys, "sweep", "--sweep-file", "sweep.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--sweep-file nowhere.yaml", "--sweep-file: 'nowhere.yaml' is refused; allowed: an existing YAML file"),
        ("--ray-address auto", "--ray-address: goes with --backend ray"),
        ("--backend ray --ray-address ray://head", "--ray-address: 'ray://head' is refused; allowed: auto"),
        ("--backend cluster", "--backend: 'cluster' is refused; allowed: local, ray"),
        ("--backend ray --slurm run.sh", "--slurm: not together with --backend"),
        ("--stages 25,50 --backend ray", "--backend: not with stages"),
    ],
)
def test_flags_that_do_not_go_together(capsys, words, message):
    assert message in refusal(capsys, "sweep", "-d", "embedded", *words.split())


def test_every_flag_of_the_command_has_its_own_spellings():
    options = [option for flag in FLAGS for option in flag.options]
    assert len(options) == len(set(options))


def test_the_dry_run_of_the_example_names_every_job_and_writes_nothing(capsys, tmp_path):
    assert cli.main(["sweep", "--sweep-file", str(EXAMPLE), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Jobs (60)" in shown and "time    unknown" in shown
    folder = "results/sizes_and_sparsities/results_movement_mrpc_small_sparsity90_seed3"
    assert f"  movement mrpc small sparsity90 seed 3: {folder}\n" in shown
    assert f"start.py gated_bert train --config-file {folder}/job.json --run-dir {folder}\n" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_adds_up_what_the_jobs_need(capsys):
    words = ["sweep", "-d", "embedded", "-m", "base", "-p", "spt,magnitude", "-max-parallel-jobs", "2", "--dry-run"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    configs = [job.config for job in read_plan({"data": "embedded", "methods": ("spt", "magnitude")}, {}, {}).jobs]
    # What they keep of every weight differs.
    memory = sum(job_memory(config, on_gpu=False) for config in configs)
    kept, working = (sum(map(size, configs)) for size in (kept_disk, working_disk))
    assert f"memory  {memory / GIB:.0f} GiB for 2 at a time" in shown
    assert f"disk    {kept / GIB:.2g} GiB at the end, {(kept + working) / GIB:.2g} GiB at most" in shown


def test_the_dry_run_leaves_open_how_many_jobs_fit_where_that_is_decided_at_the_start(capsys):
    assert cli.main(["sweep", "-d", "embedded", "-p", "spt,magnitude", "-parallel", "--dry-run"]) == 0
    assert "memory  as many at a time as there is room for, without a GPU" in capsys.readouterr().out


def test_time_is_told_by_finished_runs_like_it(capsys, tmp_path):
    config = read_plan({"data": "embedded", "methods": ("magnitude",), "model_size": "tiny"}, {}, {}).jobs[0].config
    alike = {name: getattr(config, name) for name in
             ("batch_size", "max_len", "optimizer", "precision", "jit_compile", "devices", "criterion", "pattern",
              "train_examples")}  # fmt: skip
    write_run("results", "magnitude", seed=7, epochs=4, **alike)
    write_run("results", "magnitude", seed=8, epochs=4, status="stopped", **alike)
    # 612.5 s, of them 4 × 24.5 s in epochs.
    assert list(read_paces(Path("results")).values()) == [[(514.5, 24.5)]]
    words = ["sweep", "-d", "embedded", "-m", "tiny", "-p", "magnitude,spt", "-e", "10", "--dry-run"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    cost = {line.split(":")[0].strip(): lines[number + 1] for number, line in enumerate(lines) if ": results/" in line}
    assert cost["magnitude sst2"].endswith("about 0:12:40") and cost["spt sst2"].endswith("time unknown")
    assert lines[-1].strip().startswith("time    about 0:12:40") and "1 job(s) unlike" in lines[-1]


@pytest.mark.parametrize("content", [b"epoch,seconds\n1,abc\n", b"epoch,seconds\n1,nan\n", b"epoch,seconds\n1,1e400\n",
                                     b"epoch,seconds\n1,-3\n", b"\xff\xfe", b"seconds\n\0\n", b"", b'seconds\n"' +
                                     b"1" * 200_000])  # fmt: skip
def test_a_finished_run_whose_table_is_damaged_does_not_stop_the_dry_run(capsys, content):
    config = read_plan({"data": "embedded", "methods": ("magnitude",), "model_size": "tiny"}, {}, {}).jobs[0].config
    run = write_run(Path("results"), "magnitude", epochs=2, several=False, batch_size=config.batch_size)
    next(run.glob("results_*.csv")).write_bytes(content)
    assert cli.main(["sweep", "-d", "embedded", "-m", "tiny", "-p", "magnitude", "--dry-run"]) == 0
    assert "time    unknown" in capsys.readouterr().out and read_paces(Path("results")) == {}


def test_sizes_and_sparsities_are_never_averaged(tmp_path):
    """Two sparsities and two learning rates of one method: four groups, each beside the dense runs of its own rate."""
    for rate in (1e-3, 1e-4):
        for seed in (1, 2):
            out = tmp_path / f"{rate}"
            write_run(out, "baseline", seed=seed, learning_rate=rate, end_sparsity=0.99)
            for end in (0.5, 0.9):
                write_run(out / f"{end}", "magnitude", seed=seed, learning_rate=rate, end_sparsity=end)
    groups = group_runs(read_runs(find_runs(tmp_path))[0])[0]
    pruned = [group for group in groups if group.method == "magnitude"]
    named = [f"end_sparsity={end}, learning_rate={rate}" for end in (0.5, 0.9) for rate in (0.0001, 0.001)]
    assert [group.settings for group in pruned] == named
    assert all([run.seed for run in group.runs] == [1, 2] for group in pruned)
    for group in pruned:
        rates = {run.config["learning_rate"] for run in (*group.runs, *dense_baseline(group, groups).runs)}
        assert len(rates) == 1
