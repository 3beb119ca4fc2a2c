"""What a command line comes to: defaults, schedules, the pruning window, the list of jobs."""

from __future__ import annotations

import pytest

from gated_bert.cli.parsing import make_parser, read_assignments, read_flags
from gated_bert.cli.settings import read_settings
from gated_bert.config.flag_table import SWEEP_FLAGS
from gated_bert.experiments.sweeps.jobs import plan_jobs
from gated_bert.support.checks import FlagError


def plan(words: str = "", defaults: str = "", **environ):
    """The plan of a sweep with these flags."""
    typed = read_flags(make_parser("sweep", "", SWEEP_FLAGS, {}), SWEEP_FLAGS, words.split())
    return plan_jobs(read_settings(typed, read_assignments(defaults), environ))


def by_method(words: str = "", **environ) -> dict:
    """Method → the record of its job."""
    return {job.config.pruning_method: job.config for job in plan(words, **environ).jobs}


def test_the_defaults_are_those_of_the_published_launcher():
    configs = by_method()
    assert list(configs) == ["magnitude", "movement", "spt", "baseline"]
    spt = configs["spt"]
    assert (spt.epochs, spt.batch_size, spt.model_size) == (25, 96, "base")
    assert by_method("-pt some/bert")["spt"].learning_rate == 2e-5
    assert (spt.start_sparsity, spt.end_sparsity, spt.pruning_start_epoch, spt.pruning_end_epoch) == (0.0, 0.99, 4, 23)
    assert (spt.spt_explore_per_layer, spt.task, spt.max_len, spt.data, spt.seed) == (False, "sst2", 128, "hub", 42)


def test_spt_follows_its_preset_until_an_end_is_typed():
    assert {name: config.schedule for name, config in by_method().items()} == {
        "magnitude": "linear", "movement": "linear", "spt": "auto", "baseline": "linear"}  # fmt: skip
    assert by_method("-f 0.9")["spt"].schedule == "linear"
    assert by_method("-s 0.0")["spt"].schedule == "linear"
    edited = plan("-p spt", "end_sparsity=0.8").jobs[0].config
    assert (edited.schedule, edited.end_sparsity) == ("auto", 0.8)


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("-f 0.9", "-f/--end-sparsity: 0.9"),
        ("-s 0.2", "-s/--start-sparsity: 0.2"),
        ("--schedule cubic", "--schedule: 'cubic'"),
    ],
)
def test_steps_and_flags_that_say_otherwise_are_refused(words, label):
    with pytest.raises(FlagError, match=f"{label} is refused; allowed: .*or without -ss/--sparsity-steps"):
        plan(f"-ss 10 25 50 {words}")
    assert by_method("-ss 10 25 50 -f 0.5 -s 0.1 --schedule steps")["spt"].schedule == "steps"


@pytest.mark.parametrize("words", ["-ss 10 25 50", "-ss 10,25,50", "-ss 10, 25 50 -e 25"])
def test_steps_are_separated_by_spaces_or_commas(words):
    config = by_method(words)["magnitude"]
    assert (config.sparsity_steps, config.schedule) == ((10.0, 25.0, 50.0), "steps")


@pytest.mark.parametrize(
    ("words", "window"),
    [
        ("", (4, 23)),
        ("-e 30", (4, 23)),
        ("-e 10", (4, 10)),
        ("-e 5", (4, 5)),
        ("-e 4", (1, 4)),
        ("-e 1", (1, 1)),
        ("-e 10 -pe 20", (4, 10)),
        ("-e 10 -pe 3", (1, 3)),
        ("-e 30 -ps 25", (25, 25)),
        ("-e 5 -ss 10 20 30", (3, 5)),
    ],
)
def test_a_window_nobody_typed_fits_the_epochs(words, window):
    config = by_method(words)["magnitude"]
    assert (config.pruning_start_epoch, config.pruning_end_epoch) == window


@pytest.mark.parametrize("words, window", [
    ("-p taylor -e 3", (2, 3)), ("-p magnitude,taylor -e 4", (2, 4)), ("--criterion taylor -e 2", (2, 2)),
    ("-p platon -e 4 -ss 10,20,90", (2, 4)), ("-p snip_momentum -e 3 --schedule auto", (2, 3)),
    ("-p platon -e 3 -s 0.5", (2, 3)), ("-p platon -e 3", (1, 3)), ("-p taylor -e 30", (4, 23)),
])  # fmt: skip
def test_a_window_nobody_typed_begins_where_the_method_can(words, window):
    for config in by_method(words).values():
        assert (config.pruning_start_epoch, config.pruning_end_epoch) == window
    script = plan(words, "pruning_start_epoch=1 pruning_end_epoch=3").jobs[0].config
    assert script.pruning_start_epoch == (1 if window[0] == 1 else 2)


def test_an_option_that_no_method_has_is_told():
    note = "--sparsegpt-rank is no option of magnitude, movement, and changes nothing"
    assert note in plan("-p magnitude,movement --sparsegpt-rank obs --movement-frequency 3").settings.notes
    assert note not in plan("-p magnitude,movement").settings.notes
    said = plan("-p magnitude --recipe best --teacher none --movement-schedule linear -d embedded").settings.notes
    assert not any("changes nothing" in each for each in said), "it takes the place of the recipe's schedule"
    for words in ("-p magnitude,sparsegpt --sparsegpt-rank obs", "-p baseline --sparsegpt-rank obs",
                  "--criterion sparsegpt --sparsegpt-rank obs"):  # fmt: skip
        assert plan(words).settings.notes == ()


def test_a_fitted_window_is_told():
    assert plan("-e 3").settings.notes == (
        "pruning ends at epoch 3 instead of 23, to fit -e 3",
        "pruning starts at epoch 1 instead of 4, to fit -e 3",
    )
    assert plan("").settings.notes == ()
    assert plan("-e 3 -p baseline").settings.notes == () == plan("-e 3 -p none").settings.notes
    assert plan("-e 3 -p baseline,magnitude").settings.notes


def test_jobs_are_tasks_times_seeds_times_methods():
    jobs = plan("-t sst2,mrpc -p spt baseline --seeds 1,2 -o out").jobs
    assert [str(job.folder) for job in jobs[:4]] == [
        "out/results_spt_sst2_seed1", "out/results_baseline_sst2_seed1",
        "out/results_spt_sst2_seed2", "out/results_baseline_sst2_seed2"]  # fmt: skip
    assert len(jobs) == 8 and jobs[-1].config.task == "mrpc" and jobs[-1].config.seed == 2
    assert [job.folder.name for job in plan("-p spt --seed 7").jobs] == ["results_spt_sst2"]
    everything = [job.config.task for job in plan("-t all -p none").jobs]
    assert everything == ["sst2", "cola", "mrpc", "stsb", "qnli", "rte", "wnli", "mnli"]
    assert [job.folder.name for job in plan("-t ag_news -p spt").jobs] == ["results_spt_ag_news"]
    assert len(plan("-p spt,spt,spt --seeds 1 1").jobs) == 1


def test_questions_have_a_length_of_their_own():
    configs = {job.config.task: job.config for job in plan("-t sst2,squad -p none", "max_len=128").jobs}
    assert (configs["sst2"].max_len, configs["squad"].max_len, configs["squad"].doc_stride) == (128, 384, 128)
    typed = plan("-t squad -p none -ml 96 --n-best 5 --max-answer-length 12").jobs[0].config
    assert (typed.max_len, typed.doc_stride, typed.n_best_size, typed.max_answer_length) == (96, 32, 5, 12)
    with pytest.raises(FlagError, match="--doc-stride: 96 is refused; allowed: a whole number from 1 to 95"):
        plan("-t squad -ml 96 --doc-stride 96")


def test_a_point_without_a_name():
    (job,) = plan("--criterion movement --pattern head --scope global --schedule cubic").jobs
    config = job.config
    assert (config.criterion, config.pattern, config.scope, config.schedule) == ("movement", "head", "global", "cubic")
    assert job.folder.name == "results_movement-head-global-cubic_sst2"


def test_switches_stand_alone_or_take_a_word():
    assert by_method("-se")["spt"].spt_explore_per_layer is True
    assert by_method("-se -e 30")["spt"].spt_explore_per_layer is True
    assert by_method("-se False")["spt"].spt_explore_per_layer is False
    assert by_method("--clip-norm none")["spt"].clip_norm is None


def test_benchmark_epochs_override_the_flag():
    made = plan("-e 20", BENCHMARK_EPOCHS="3")
    assert made.jobs[0].config.epochs == 3
    assert "BENCHMARK_EPOCHS" in made.settings.notes[0]


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue").mkdir()
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    config = plan("-d glue --vocab vocab.txt -pt glue").jobs[0].config
    assert config.data == config.pretrained == str(tmp_path / "glue")
    assert config.vocab == str(tmp_path / "vocab.txt")
    assert plan("-pt google/bert_uncased_L-2_H-128_A-2").jobs[0].config.pretrained.startswith("google/")


def test_a_file_of_ones_own_is_its_own_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My reviews.csv").write_text("text,label\n")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "train.tsv").write_text("text\tlabel\n")
    typed = {"data": "My reviews.csv"}
    (first, *_) = plan_jobs(read_settings(typed, {}, {})).jobs
    assert (first.config.task, first.folder.name) == ("my_reviews", "results_magnitude_my_reviews")
    assert plan("-d letters").jobs[0].config.task == "letters"
    assert plan("-d letters -t post").jobs[0].config.task == "post"
    assert plan("-d letters/train.tsv").jobs[0].folder.name == "results_magnitude_letters"
    assert plan("-d letters --task-type regression").jobs[0].config.task_type == "regression"
    for flag in ("--task-type classification", "--label-column stars"):
        with pytest.raises(FlagError, match=f"{flag.split()[0]}: '.*' is refused; allowed: own data only"):
            plan(f"-d embedded {flag}")
    with pytest.raises(FlagError, match="one name"):
        plan("-d letters --text-column text -t post mail")


def test_unknown_defaults_of_a_script_are_refused():
    with pytest.raises(FlagError, match="epochs"):
        plan("", "epoch=3")
