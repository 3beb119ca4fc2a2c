"""`--teacher self`: the dense jobs first, their students from them, on every backend's plan; with fake jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gated_bert.cli import main as cli
from gated_bert.cli.common import typed_flags
from gated_bert.cli.sweep_commands import FLAGS, read_plan
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import Run
from gated_bert.experiments.runs.teacher_folder import TeacherFolder, model_of_teacher
from gated_bert.experiments.sweeps import ray_worker
from gated_bert.experiments.sweeps.ray_worker import RayWorker
from gated_bert.experiments.sweeps.resources import job_memory
from gated_bert.support.paths import MOVED_VARIABLE, user_path
from tests.experiments.test_slurm import fake_jobs, place  # noqa: F401 -- fixtures
from tests.experiments.test_sweep import launch, start, status, times_run, wait_until
from tests.refused import refusal

SELF = ("--teacher", "self", "-e", "1")
OF = {"magnitude": "magnitude-distilled", "movement": "movement-distilled"}


def planned(*words: str):
    flags = ["-d", "embedded", "-e", "2", "-o", "out", *words]
    return read_plan(typed_flags("sweep", "", FLAGS, flags), {}, {}).jobs


def began(folder: Path, name: str) -> float:
    (found,) = (folder / "out" / f"results_{name}_sst2").glob("ran-*")
    return found.stat().st_mtime


def test_the_dense_model_of_each_task_and_seed_comes_first_and_is_where_the_others_start():
    jobs = planned("-p", "magnitude,movement", "-t", "sst2,mrpc", "--seeds", "1,2", *SELF[:2], "-pt", ".")
    names = [job.name for job in jobs]
    expected = [f"{method} {task} seed {seed}" for task in ("sst2", "mrpc") for seed in (1, 2)
                for method in ("baseline", *OF.values())]  # fmt: skip
    assert names == expected
    for number, job in enumerate(jobs):
        if number % 3 == 0:
            assert (job.config.teacher, job.after) == (None, None) and job.config.pretrained == str(Path.cwd())
            continue
        dense = jobs[number - number % 3]
        model = str((dense.folder / "model").resolve())
        assert job.after == dense and (job.config.teacher, job.config.pretrained) == (model, model)
        assert (job.asked.teacher, job.asked.pretrained) == ("self", dense.config.pretrained)
        assert job.config.distill_hardness == 0.9


def test_one_dense_model_stands_beside_all_ways_to_prune_and_to_learn(tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text("methods: [magnitude]\nsizes: [tiny, bert-tiny]\nsparsities: [0.5, 0.9]\n"
                    "distill_hardness: [0.5, 1.0]\nteacher: self\n")  # fmt: skip
    jobs = planned("--sweep-file", str(grid))
    dense = [job for job in jobs if not job.config.enable_pruning]
    assert len(dense) == 2 and len(jobs) == 2 + 8
    assert {job.after.folder for job in jobs if job.after} == {job.folder for job in dense}
    for job in jobs:
        assert job.after is None or job.after.config.model_size == job.config.model_size


def test_a_baseline_that_is_asked_for_is_the_teacher_itself():
    jobs = planned("-p", "magnitude,baseline", *SELF[:2])
    assert [job.name for job in jobs] == ["baseline sst2", "magnitude-distilled sst2"]


def test_a_teacher_beside_the_model_counts_in_the_estimate_of_memory():
    def memory(*words):
        return job_memory(planned("-m", "tiny", "-p", "magnitude", *words)[-1].asked, on_gpu=False)

    assert memory(*SELF[:2], "--distill-layers", "all") > memory(*SELF[:2]) == memory()


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    done = launch(folder, "-p", "magnitude,movement", "-max-parallel-jobs", "3", *SELF, FAKE_STEP="0.02")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "teacher" in done.stdout and "note: the dense model of each task and seed is trained first" in done.stdout
    return folder


def test_students_wait_for_their_teacher(taught):
    finished = (taught / "out/results_baseline_sst2/status.json").stat().st_mtime
    assert all(began(taught, name) >= finished for name in OF.values())


def test_the_dry_run_says_what_comes_after_what(tmp_path):
    shown = launch(tmp_path, "-p", "magnitude", "--dry-run", *SELF).stdout
    assert "Jobs (2)" in shown and "; after baseline sst2" in shown and not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_a_failed_teacher_fails_its_students_in_one_sentence_and_resume_tries_all_again(tmp_path):
    words = ("-p", "magnitude,movement", "-max-parallel-jobs", "2", *SELF)
    done = launch(tmp_path, *words, FAKE_FAIL="baseline")
    assert done.returncode == 1
    for name in OF.values():
        told = status(tmp_path, name)
        assert (told["state"], told["message"]) == ("failed", "its teacher, baseline sst2, failed")
        assert f"{name} sst2 was not started: its teacher, baseline sst2, failed" in done.stdout
        assert times_run(tmp_path, name) == 0
    assert "3 of 3 jobs failed" in done.stdout
    again = launch(tmp_path, *words, "--resume")
    assert again.returncode == 0, again.stdout
    assert {status(tmp_path, name)["state"] for name in ("baseline", *OF.values())} == {"finished"}


@pytest.mark.nightly
def test_a_stopped_sweep_goes_on_with_the_students_of_a_finished_teacher(tmp_path):
    words = ("-p", "magnitude,movement", *SELF)
    process = start(tmp_path, *words, FAKE_STEP="0.1")
    wait_until(lambda: status(tmp_path, OF["magnitude"]).get("state") == "running")
    process.terminate()
    assert process.wait(20) == 130
    done = launch(tmp_path, *words, "--resume")
    assert done.returncode == 0, done.stdout
    assert [times_run(tmp_path, name) for name in ("baseline", *OF.values())] == [1, 2, 1]


def test_slurm_runs_the_teachers_as_an_array_of_their_own(place, fake_jobs, capsys):  # noqa: F811
    words = ["sweep", "-d", "embedded", "-m", "tiny", "-o", "my results", "-p", "magnitude,movement", "--seeds", "1,2",
             "--slurm", "array job.sh", *SELF]  # fmt: skip
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "sbatch --dependency=afterany:$(sbatch --parsable 'array job_teachers.sh') 'array job.sh'" in shown
    scripts = [Path(name).read_text() for name in ("array job_teachers.sh", "array job.sh")]
    assert [script.count("results_") for script in scripts] == [2, 4]
    assert "--array=0-1%2" in scripts[0] and "--array=0-3%4" in scripts[1]
    for seed in (1, 2):
        (Path("my results") / f"results_baseline_sst2_seed{seed}/status.json").write_text('{"state": "finished"}')
    assert cli.main([*words, "--resume"]) == 0
    assert "submit:   sbatch 'array job.sh'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [["train", "-p", "magnitude"], ["stages", "-p", "magnitude"], ["lottery"], ["compress"],
     ["oneshot", "--sparsities", "50"]],
    ids=lambda command: command[0],
)
def test_where_no_sweep_trains_the_dense_model_self_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*command, "-d", "embedded", "-m", "tiny", "-t", "sst2", "-e", "3", "--teacher", "self"]
    expected = "error: --teacher: 'self' is refused; allowed: a folder; self is for gated-bert sweep"
    assert refusal(capsys, *words).startswith(expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["train"], ["stages", "--stages", "25,50"]], ids=lambda command: command[0])
def test_a_teacher_that_a_recipe_names_is_refused_as_the_recipes_and_can_be_left_out(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = [*command, "-d", "embedded", "-m", "tiny", "-t", "sst2", "--recipe", "best"]
    said = refusal(capsys, *words)
    assert said.startswith("error: --teacher: 'self' is refused; allowed: a folder; self is for gated-bert sweep")
    assert said.strip().endswith("; or none: self is of the recipe best")
    configs = [job.config for job in planned("--recipe", "best", "--teacher", "none", "-p", "magnitude,l0")]
    assert [(config.teacher, config.scope) for config in configs] == [(None, "global"), (None, "layer")]


def test_a_teacher_that_is_not_there_or_of_another_task_is_refused_before_any_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "-d", "embedded", "-m", "tiny", "-e", "2", "-p", "magnitude", "-t", "sst2"]
    assert "--teacher: 'nowhere' is refused" in refusal(capsys, *words, "--teacher", "nowhere")
    Path("empty").mkdir()
    assert cli.main([*words, "--teacher", "empty"]) == 2
    assert "allowed: the folder of a trained model, or of a finished run" in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_node_without_the_disk_finds_the_model_of_another_job_that_was_sent_along(tmp_path, monkeypatch):
    head = tmp_path / "head/out"
    dense = head / "results_baseline_sst2"
    named = str(head / "results_magnitude-distilled_sst2")
    worker = RayWorker(str(tmp_path / "no token"), named, named, ["", "gated_bert", "train", named], {})
    assert not worker.shares_disk()
    worker.append(f"../{dense.name}/model/config.json", b"{}")
    started = []
    monkeypatch.setattr(ray_worker, "start_process", lambda *words: started.append(words))
    worker.start(resume=False)
    ((command, _, variables),) = started
    monkeypatch.setenv(MOVED_VARIABLE, variables[MOVED_VARIABLE])
    moved = user_path(dense / "model")
    assert (moved / "config.json").read_text() == "{}" and not moved.is_relative_to(tmp_path / "head")
    assert Path(command[-1]).parent == moved.parent.parent
    assert user_path(tmp_path / "elsewhere") == tmp_path / "elsewhere"
    (Path(command[-1]) / "job.json").write_text("{}")
    worker.remove(finished=False)
    assert not moved.exists()


def test_a_student_stands_in_the_panel_of_the_model_it_starts_from(tmp_path):
    """As the dense run does, also where a student is the teacher of another."""
    model = tmp_path / "results_baseline_sst2_seed3/model"
    model.mkdir(parents=True)
    (model / "model.keras").touch()
    config = GatedBertConfig(pretrained=str(model), teacher=str(model))
    folder = TeacherFolder(model, None, (0, 1))
    dense, student = {"config": {"pretrained": "some/minilm"}}, {"model": "tiny"}
    for made, expected in ((dense, "minilm"), (student, "tiny"), ({}, None)):
        (model / "metadata.json").write_text(json.dumps(made))
        assert model_of_teacher(config, folder) == expected
    assert model_of_teacher(config.replace(pretrained=None), folder) is None
    run = Run(tmp_path, {"config": {"pretrained": str(model)}, "model": "tiny"}, None, tmp_path)
    assert run.model == "tiny"
