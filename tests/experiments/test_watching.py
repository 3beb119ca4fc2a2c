"""Runs watched by their files: what is shown of them, and that nothing else is served, to nobody else."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gated_bert.experiments.reports.interactive import script
from gated_bert.experiments.sweeps.progress import Display
from gated_bert.experiments.sweeps.watch_server import make_server
from gated_bert.experiments.sweeps.watching import Watch, follow
from gated_bert.support.errors import UserError
from tests.experiments.synthetic_runs import write_run
from tests.experiments.test_pages import ALL, Parsed
from tests.refused import refusal

SECRET = "root:x:0:0"


def write_status(folder: Path, **status):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(status))


@pytest.fixture
def sweep(tmp_path) -> Path:
    """A sweep of a finished run, one that runs, one that failed and one that waits."""
    output = tmp_path / "out"
    done = write_run(output, "magnitude", epochs=4, several=False)
    write_status(done, state="finished", epoch=4, epochs=4, metric=0.75, metric_name="accuracy", sparsity=0.5)
    running = write_run(output, "spt", epochs=2, status="running", several=False)
    write_status(running, state="running", epoch=3, epochs=4, step=5, steps=10, metric=0.5, metric_name="accuracy",
                 sparsity=0.25, seconds_left=60.0, updated=time.time())  # fmt: skip
    write_status(output / "results_l0_sst2", state="failed", message="out of <b>memory</b>")
    names = ("spt", "magnitude", "l0", "taylor")
    planned = [{"name": f"{name} sst2", "folder": f"results_{name}_sst2"} for name in names]
    (output / "sweep.json").write_text(json.dumps({"runs": planned}))
    return output


@pytest.fixture
def ask(request):
    """`ask(folder)` serves it, and gives what answers a method, an address and headers: status, headers, content."""

    def of(folder):
        server = make_server(Watch(folder), 0)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        request.addfinalizer(lambda: (server.shutdown(), server.server_close()))

        def answer(address="/", method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
            connection.putrequest(method, address, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.headers, response.read()

        return answer

    return of


def test_what_is_shown_is_what_the_runs_wrote(sweep):
    runs = Watch(sweep).look()
    assert [(run.name, run.state, run.fraction) for run in runs] == [
        ("spt sst2", "running", 0.625), ("magnitude sst2", "finished", 1.0), ("l0 sst2", "failed", 0.0),
        ("taylor sst2", "waiting", 0.0)]  # fmt: skip


def test_a_run_alone_old_runs_and_those_of_several_sweeps_are_found(tmp_path, sweep):
    (run,) = Watch(sweep / "results_spt_sst2").look()
    assert (run.name, run.state) == ("spt_sst2", "running")
    write_run(tmp_path / "other", "random", several=False)  # Without status.json, as versions before it left it.
    (tmp_path / "other/saved_results/results_l0_sst2").mkdir(parents=True)
    write_status(tmp_path / "other/saved_results/results_l0_sst2", state="finished")
    (tmp_path / "slurm/results_l0_cola").mkdir(parents=True)
    (tmp_path / "slurm/results_l0_cola/job.json").write_text("{}")
    names = {run.name: run.state for run in Watch(tmp_path).look()}
    assert names.items() >= {("other/random_sst2", "finished"), ("slurm/l0_cola", "waiting"), ("l0 sst2", "failed")}
    assert len(names) == 6


def test_a_run_that_says_nothing_any_more_is_told_so(sweep):
    write_status(sweep / "results_spt_sst2", state="running", epoch=1, epochs=4, updated=time.time() - 3600)
    run = Watch(sweep).look()[0]
    assert run.state == "running" and 3600 <= run.silent < 3700


def test_the_terminal_shows_a_sweep_until_all_have_ended(sweep, capsys, monkeypatch):
    watch = Watch(sweep)

    def end():
        time.sleep(0.4)
        told = {"metric_name": "accuracy", "metric": 0.6}
        write_status(sweep / "results_taylor_sst2", state="running", epoch=2, epochs=4, **told)
        time.sleep(0.8)
        for name in ("spt", "taylor"):
            write_status(sweep / f"results_{name}_sst2", state="finished")

    thread = threading.Thread(target=end)
    thread.start()
    follow(watch, Display("bars", live=False))
    thread.join()
    lines = capsys.readouterr().out.splitlines()
    assert "[magnitude sst2] finished" in lines and "[l0 sst2] failed" in lines
    assert any(line.startswith("[taylor sst2] 25 %: epoch 2/4") and "accuracy 0.600" in line for line in lines)
    assert lines[-1] == "[taylor sst2] finished"


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "needs one folder"), (("nowhere",), "'nowhere' is refused; allowed: an existing folder of runs"),
     (("empty",), "no runs in empty"), (("empty", "--web", "70000"), "--web"),
     (("empty", "--web", "1", "--output-mode", "logs"), "--output-mode: not together with --web")],
)  # fmt: skip
def test_what_cannot_be_watched_is_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert said in refusal(capsys, "watch", *words)


def test_a_port_in_use_is_refused(sweep):
    with make_server(Watch(sweep), 0) as server, pytest.raises(UserError, match="--web: port .* cannot be used"):
        make_server(Watch(sweep), server.server_address[1])


def test_the_page_gets_states_curves_and_logs(sweep, ask):
    answer = ask(sweep)
    state = json.loads(answer("/state.json")[2])
    assert state["summary"] == "1 of 4 finished, 1 running, 1 failed, 1 waiting" and state["metric"] == "accuracy"
    run = state["runs"][0]
    shown = [run[name] for name in ("name", "epoch", "step", "sparsity", "left")]
    assert shown == ["spt sst2", "3/4", "5/10", "25.0 %", "0:01:00"]
    views = json.loads(answer("/curves.json")[2])
    assert [view["x"] for view in views] == ["epoch", "epoch", "sparsity (%)", "sparsity (%)"]
    drawn = {line["name"]: [point[0] for point in line["points"]] for line in views[0]["lines"]}
    assert drawn == {"spt sst2": [1, 2], "magnitude sst2": [1, 2, 3, 4]}
    log = json.loads(answer(f"/log.json?run={run['key']}")[2])
    assert log == {"text": "synthetic log of spt"}


def test_it_follows_what_is_written_meanwhile(sweep, ask):
    answer = ask(sweep)
    write_status(sweep / "results_taylor_sst2", state="running", epoch=1, epochs=2)
    (sweep / "results_spt_sst2/log.txt").write_text("another\n")
    state = json.loads(answer("/state.json")[2])
    assert state["runs"][3]["state"] == "running"
    assert json.loads(answer(f"/log.json?run={state['runs'][0]['key']}")[2])["text"] == "another"


def test_it_is_reached_from_this_machine_alone(sweep):
    with make_server(Watch(sweep), 0) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "evil:80", "0.0.0.0", "", "[::1]"])
def test_another_name_of_this_machine_is_refused(sweep, ask, host):
    """A page from elsewhere may have its own name lead here, and would then be allowed to read."""
    for address in ("/", "/state.json"):
        status, _, content = ask(sweep)(address, Host=host)
        assert status == 403 and b"sst2" not in content
    assert ask(sweep)("/", Host="localhost:9000")[0] == 200, "the port may be that of a tunnel"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_it_is_read_only(sweep, ask, method):
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*")}
    status, headers, _ = ask(sweep)("/state.json", method)
    assert status in (405, 501) and "Access-Control-Allow-Origin" not in headers
    assert {path: path.stat().st_mtime_ns for path in sweep.rglob("*")} == before


@pytest.mark.parametrize(
    "address",
    ["/../outside.txt", "/%2e%2e/outside.txt", "//outside.txt", "/results_spt_sst2/log.txt", "/sweep.json", "/log.txt",
     "/log.json", "/log.json?run=../outside", "/log.json?run=..%2Foutside.txt", "/state.json/../../outside.txt", "/%01",
     "http://127.0.0.1/outside.txt", "/log.json?run=", "/." * 2000, "//["],
)  # fmt: skip
def test_no_address_names_a_file(tmp_path, sweep, ask, address):
    (tmp_path / "outside.txt").write_text(SECRET)
    status, _, content = ask(sweep)(address)
    assert status in (400, 404) and SECRET.encode() not in content


@pytest.mark.parametrize("name", ["log.txt", "status.json", "results_spt_20250102_030405.csv"])
def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path, sweep, ask, name):
    outside = tmp_path / "outside"
    contents = {"log.txt": SECRET, "status.json": json.dumps({"state": "failed", "message": SECRET})}
    outside.write_text(contents.get(name, "epoch,sparsity,val_loss,val_accuracy\n1,0,0.5,0.123\n"))
    path = sweep / "results_spt_sst2" / name
    path.unlink()
    path.symlink_to(outside)
    answer = ask(sweep)
    key = next(run.key for run in Watch(sweep).look() if run.name == "spt sst2")
    told = b"".join(answer(address)[2] for address in ("/state.json", "/curves.json", f"/log.json?run={key}"))
    assert SECRET.encode() not in told and b"12.3" not in told


@pytest.mark.parametrize("mode", ["logs", "both"])
def test_logs_are_shown_of_the_folder_alone(tmp_path, sweep, capsys, mode):
    """Of a log that is a link, of a run's folder that is one, of one that a plan names outside; and none obeyed."""
    elsewhere = write_run(tmp_path / "elsewhere", "random", status="running", several=False)
    (sweep / "results_taylor_sst2").symlink_to(elsewhere)
    planned = [{"name": name, "folder": name} for name in ("results_taylor_sst2", "..", "results_spt_sst2")]
    (sweep / "sweep.json").write_text(json.dumps({"runs": planned}))
    for folder in (elsewhere, tmp_path):
        (folder / "log.txt").write_text("")
    outside = tmp_path / "outside"
    outside.write_text("")
    (sweep / "results_l0_sst2" / "log.txt").symlink_to(outside)
    os.mkfifo(sweep / "results_magnitude_sst2" / "pipe")
    (sweep / "results_magnitude_sst2" / "log.txt").unlink()
    (sweep / "results_magnitude_sst2" / "log.txt").symlink_to("pipe")
    watch = Watch(sweep)
    display = Display(mode, live=False)
    display.start(watch.look())
    for path in (outside, elsewhere / "log.txt", tmp_path / "log.txt"):
        path.write_text(f"{SECRET}\n")
    with open(sweep / "results_spt_sst2" / "log.txt", "a") as log:
        log.write("shown \x1b[2J\n")
    display.update(watch.look())
    told = capsys.readouterr().out
    assert "shown \\x1b[2J" in told and "\x1b" not in told and SECRET not in told
    watch.log(next(run for run in watch.look() if run.folder.name == "results_magnitude_sst2"))


@pytest.mark.parametrize("name", ["log.txt", "status.json"])
@pytest.mark.parametrize("kind", ["link to itself", "folder"])
def test_what_is_no_file_is_passed_over_and_left_closed(sweep, name, kind):
    path = sweep / "results_spt_sst2" / name
    path.unlink()
    path.symlink_to(name) if kind == "link to itself" else path.mkdir()
    watch = Watch(sweep)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        for run in watch.look():
            watch.log(run)
    assert not before or len(os.listdir("/proc/self/fd")) <= before


def test_folders_that_links_lead_to_are_not_entered(tmp_path, sweep, ask):
    elsewhere = write_run(tmp_path / "elsewhere", "random", several=False)
    (elsewhere / "log.txt").write_text(SECRET)
    (sweep / "results_random_sst2").symlink_to(elsewhere)
    places = ("results_random_sst2", "../elsewhere/results_random_sst2", str(elsewhere), "..", "")
    planned = [{"name": "a", "folder": place} for place in places]
    (sweep / "sweep.json").write_text(json.dumps({"runs": planned}))
    answer = ask(sweep)
    for run in json.loads(answer("/state.json")[2])["runs"]:
        assert json.loads(answer(f"/log.json?run={run['key']}")[2])["text"] != SECRET
    assert b"random" not in answer("/curves.json")[2]


def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(sweep, ask):
    for name in ("log.txt", "status.json"):
        (sweep / "results_spt_sst2" / name).unlink()
        os.mkfifo(sweep / "results_spt_sst2" / name)
    assert ask(sweep)("/state.json")[0] == 200


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"state": 3}', '{"state": "odd", "epoch": 1e300, "epochs": 1}',
     '{"updated": "now", "state": "running"}',
     '{"state": "running", "metric_name": "<img src=x>", "epoch": -1, "epochs": 3, "seconds_left": NaN}',
     '{"state": "running", "message": "\\u001b[2J", "sparsity": 1e400}'],
)  # fmt: skip
def test_a_damaged_status_is_no_fault(sweep, ask, content):
    (sweep / "results_spt_sst2/status.json").write_text(content)
    (sweep / "sweep.json").write_text(content)
    status, _, told = ask(sweep)("/state.json")
    assert status == 200 and len(json.loads(told)["runs"]) == 3 and b"\\u001b" not in told
    Display("bars", live=False).table(Watch(sweep).look())


def test_names_are_text_on_the_page(tmp_path, ask):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    write_status(folder / "results_<script>_x", state="failed", message=ALL.encode("utf-8", "replace").decode())
    status, headers, content = ask(folder)("/")
    parsed = Parsed(content)
    assert status == 200 and parsed.tags.count("script") == 1 and "img" not in parsed.tags
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "sha256-" in policy and "script-src 'unsafe-inline'" not in policy
    assert {"nosniff", "no-referrer", "DENY"} <= set(headers.values())
    assert ask(folder)("/state.json")[1]["Content-Type"].startswith("application/json")


def test_the_scripts_make_no_markup_from_text():
    """What they are given is data: a text node, or an attribute that runs nothing."""
    page = Path(sys.modules[make_server.__module__].__file__).with_name("watch_page.js").read_text()
    for code in (script(), page):
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "http:"):
            assert word not in code.replace("http://www.w3.org/2000/svg", ""), word


def test_the_command_serves_until_it_is_stopped(sweep):
    words = [sys.executable, "-m", "gated_bert", "watch", str(sweep), "--web", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        port = int(said.split("127.0.0.1:")[1].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("HEAD", "/")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
