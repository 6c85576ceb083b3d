"""Workflows from their file to their end, as a user runs them."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilotflow.workflow.holding import holder, is_held
from tests.integration import workflow_tools as tools
from tests.integration.workflow_tools import Cli
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)  # many processes, one after another, on a machine that may be busy

DIAMOND = """
name: diamond
files:
  - {name: raw, path: raw.txt}
jobs:
  - {name: pre, command: echo 1 > raw.txt, output_files: [raw]}
  - {name: left, command: "cat raw.txt; echo left", input_files: [raw]}
  - {name: right, command: "cat raw.txt; echo right >&2", input_files: [raw]}
  - {name: post, command: echo done, depends_on: [left, right]}
"""
FAILS = """
name: fails
jobs:
  - {name: good, command: echo fine}
  - {name: bad, command: "echo why >&2; exit 3"}
  - {name: after, command: echo never, depends_on: [bad]}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return tools.command_line(tmp_path)


def _file(directory: Path, text: str, name: str = "workflow.yaml") -> str:
    (directory / name).write_text(text)
    return name


def test_a_diamond_runs_and_each_of_its_records_can_be_read(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", _file(tmp_path, DIAMOND))
    assert "has succeeded: 4 completed" in done.stdout
    assert [job["state"] for job in json.loads(cli("jobs", "--json").stdout)] == ["completed"] * 4
    rows = json.loads(cli("results", "last", "-j", "left,right", "--json").stdout)
    assert [(row["name"], row["attempt"], row["exit_code"]) for row in rows] == [("left", 1, 0), ("right", 1, 0)]
    assert cli("logs", "last", "left", "--stdout").stdout == "1\nleft\n"
    assert cli("logs", "1", "right", "--stderr").stdout == "right\n"
    listed = json.loads(cli("list", "--json").stdout)
    assert [(run["run"], run["state"]) for run in listed] == [("0001", "succeeded")]
    assert json.loads(cli("status", "--json").stdout)["jobs"]["completed"] == 4


def test_a_failure_is_exit_code_1_with_the_last_lines_of_stderr_and_the_next_commands(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", _file(tmp_path, FAILS), code=1)
    assert "1 completed, 1 failed, 1 cancelled" in done.stdout
    assert "bad failed (attempt 1, exit code 3):\n    why\n    see: pilotflow logs 0001 bad\n" in done.stdout
    assert "pilotflow rerun 0001 --failed" in done.stdout
    assert cli("logs").stdout.endswith("why\n"), "what failed is shown by default"


def test_a_wrong_file_is_exit_code_2_and_starts_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", _file(tmp_path, "name: x\njobs:\n  - {name: a, command: b, depends_on: [c]}\n"), code=2)
    assert "workflow.yaml:3:" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_in_the_background_is_seen_cancelled_and_attached_to(cli: Cli, tmp_path: Path) -> None:
    text = "name: slow\njobs:\n  - {name: quick, command: 'true'}\n" + "".join(
        f"  - {{name: slow{n}, command: sleep 600}}\n" for n in range(4)
    )
    started = json.loads(cli("submit", _file(tmp_path, text), "--json", "--num-cpus", "2").stdout)
    run = Path(started["directory"])
    until(lambda: tools.completed(run) == {"quick"}, "the quick job is completed")
    assert cli("status").stdout.splitlines()[0] == "Run 0001 of 'slow': running"
    refused = cli("resume", code=2).stderr
    assert f"pid {started['pid']}" in refused
    assert json.loads(cli("cancel", "last", "-j", "slow*", "--json").stdout)["cancelled"] == 4
    done = cli("attach", code=1)
    assert "1 completed, 4 cancelled" in done.stdout
    until(lambda: tools.nothing_left(run), "no process of the run is left")
    assert cli("cancel", code=2).stderr.count("not running") == 1


def test_cancelling_jobs_tells_how_many_others_depended_on_them(cli: Cli, tmp_path: Path) -> None:
    text = "name: line\njobs:\n  - {name: a, command: sleep 600}\n  - {name: other, command: sleep 600}\n" + "".join(
        f"  - {{name: {name}, command: 'true', depends_on: [{before}]}}\n" for before, name in (("a", "b"), ("b", "c"))
    )
    run = Path(json.loads(cli("submit", _file(tmp_path, text), "--json").stdout)["directory"])
    until(lambda: tools.states(run).get("running"), "a job runs")
    assert cli("cancel", "-j", "a,b").stdout == "Run 0001: cancelled 2 jobs, and 1 that depended on them.\n"
    assert cli("cancel", "-j", "a").stdout == "Run 0001: nothing to cancel; these jobs have ended.\n"
    assert "cancel  2 jobs, and 1 that depended on them" in cli("events").stdout
    said = json.loads(cli("cancel", "--json").stdout)
    assert said == {"run": "0001", "cancelled": 1, "dependents": 0}
    cli("attach", code=1)


def test_jobs_know_who_they_are(cli: Cli, tmp_path: Path) -> None:
    names = "TORC_WORKFLOW_ID TORC_JOB_ID TORC_JOB_NAME TORC_ATTEMPT_ID PILOTFLOW_JOB_NAME PILOTFLOW_ATTEMPT"
    command = "; ".join(f"echo ${name}" for name in names.split())
    cli("run", _file(tmp_path, f"name: who\njobs:\n  - {{name: me, command: '{command}'}}\n"))
    assert cli("logs", "last", "me").stdout.split()[-6:] == ["0001", "1", "me", "1", "me", "1"]


def test_a_promised_file_that_is_not_there_is_a_failure(cli: Cli, tmp_path: Path) -> None:
    text = "name: x\nfiles:\n  - {name: f, path: never.txt}\njobs:\n  - {name: a, command: 'true', output_files: [f]}\n"
    done = cli("run", _file(tmp_path, text), code=1)
    assert "did not make" in done.stdout
    assert "never.txt" in done.stdout


def test_a_job_that_waits_is_explained_down_to_the_one_that_all_waits_for(cli: Cli, tmp_path: Path) -> None:
    text = "name: line\njobs:\n  - {name: a, command: sleep 600}\n" + "".join(
        f"  - {{name: {name}, command: 'true', depends_on: [{before}]}}\n" for before, name in (("a", "b"), ("b", "c"))
    )
    started = json.loads(cli("submit", _file(tmp_path, text), "--json").stdout)
    run = Path(started["directory"])
    until(lambda: tools.states(run).get("running"), "the first job runs")
    said = json.loads(cli("explain", "last", "c", "--json").stdout)
    assert (said["name"], said["state"], said["reasons"][0]["text"]) == ("c", "waiting", "It waits for b.")
    assert [link["name"] for link in said["chain"]] == ["b", "a"]
    assert (said["root"]["name"], said["root"]["state"]) == ("a", "running")
    assert cli("explain", "last", "c").stdout.startswith("Job 3 (c) waits for job 1 (a).\n")
    cli("cancel")
    cli("attach", code=1)
    assert cli("explain", "last", "c").stdout.startswith("Job 3 (c) was cancelled.\n\n  It was cancelled")
    assert "no job" in cli("correct", str(tmp_path / "workflow.yaml"), code=2).stderr.lower()
    assert "selects no job" in cli("explain", "last", "x", code=2).stderr


def test_a_job_that_goes_on_after_its_program_was_killed_is_said_to_run(cli: Cli, tmp_path: Path) -> None:
    text = "name: x\njobs:\n  - {name: a, command: sleep 600}\n  - {name: b, command: 'true', depends_on: [a]}\n"
    run = Path(json.loads(cli("submit", _file(tmp_path, text), "--json").stdout)["directory"])
    until(lambda: tools.states(run).get("running"), "the first job runs")
    program = holder(run)
    assert program is not None
    os.kill(program.pid, signal.SIGKILL)
    until(lambda: not is_held(run), "the program is dead")
    said = until(lambda: said if (said := cli("explain", "a").stdout).startswith("Job 1 (a) is running.") else None)
    assert "The run's program is gone; what has been handed out goes on." in said
    assert said.endswith("What now: Go on with the run: pilotflow resume 0001.\n")
    cli("cancel")
    cli("attach", code=1)
    until(lambda: tools.nothing_left(run), "everything of the run is gone")
    assert cli("explain", "b").stdout == (
        "Job 2 (b) was cancelled.\n\n  It was cancelled because it depends on a (cancelled).\n"
    )


def test_a_run_whose_disk_is_full_ends_with_words_and_goes_on_when_there_is_room(cli: Cli, tmp_path: Path) -> None:
    text = 'name: many\njobs: [{name: "job{i}", command: "true", parameters: {i: "1:1500"}}]\n'
    file = _file(tmp_path, text)
    few = ["prlimit", "--fsize=500000", sys.executable, "-m", "pilotflow", "run", file]
    done = subprocess.run(few, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "pilotflow resume 0001" in done.stderr
    until(lambda: tools.nothing_left(tmp_path / "runs" / "0001"), "everything of the run is gone")
    assert "has succeeded: 1,500 completed" in cli("resume").stdout


def test_a_disk_without_room_for_a_run_leaves_no_run_behind(cli: Cli, tmp_path: Path) -> None:
    # -B: else half a .pyc may be left of a module that was not compiled yet, and be read by others.
    few = ["prlimit", "--fsize=8192", sys.executable, "-B", "-m", "pilotflow", "run", _file(tmp_path, DIAMOND)]
    done = subprocess.run(few, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "Cannot make the run store" in done.stderr
    assert not list((tmp_path / "runs").glob("0*"))
    assert "has succeeded" in cli("run", "workflow.yaml").stdout


def test_the_list_says_which_runs_it_cannot_read_and_tasks_are_explained_wherever_runs_are(
    cli: Cli, tmp_path: Path
) -> None:
    file = _file(tmp_path, DIAMOND)
    cli("run", file, "--run-dir", "there")
    cli("run", file, "--run-dir", "there")
    (tmp_path / "there" / "0001" / "run.db").write_bytes(b"no database" * 1000)
    done = cli("list", "--run-dir", "there", "--json")
    assert [run["run"] for run in json.loads(done.stdout)] == ["0002"]
    assert done.stderr.startswith("Run 0001 is left out. Cannot read the run store")
    name = json.loads(cli("jobs", "--run-dir", "there", "--json").stdout)[0]["name"]
    for words in ((name,), ("2", name), ("last", name)):
        assert name in cli("explain", *words, "--run-dir", "there").stdout


def test_a_run_in_which_nothing_is_left_to_do_stays_as_it_is_when_resumed(cli: Cli, tmp_path: Path) -> None:
    cli("run", _file(tmp_path, DIAMOND))
    before = json.loads(cli("status", "--json").stdout)
    assert cli("resume").stdout.startswith("Run 0001 of 'diamond' has succeeded: 4 completed.")
    assert json.loads(cli("status", "--json").stdout) == before


def test_commands_that_are_shown_can_be_pasted_whatever_the_names(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", _file(tmp_path, """name: odd\njobs: [{name: "it's $HOME", command: exit 1}]"""), code=1)
    shown = next(line for line in done.stdout.splitlines() if "see: pilotflow logs" in line)
    assert shlex.split(shown)[-1] == "it's $HOME"


LICENSED = """
name: licensed
jobs:
  - {name: "j{n}", command: "date +%s%N; sleep 0.3; date +%s%N", resource_requirements: one, parameters: {n: "1:3"}}
resource_requirements:
  - {name: one, num_cpus: 0.1, memory: 1m, resources: {licence: 1}}
"""


def test_what_a_site_counts_is_offered_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    file = _file(tmp_path, LICENSED)
    assert "It asks for 1 of 'licence' a node; the largest node has none" in cli("run", file, code=1).stdout
    for wrong in ("licence", "licence=0"):
        assert "resources" in cli("run", file, "--resources", wrong, code=2).stderr
    cli("run", file, "--resources", "licence=1")
    spans = sorted(tuple(map(int, cli("logs", "last", f"j{n}", "--stdout").stdout.split())) for n in (1, 2, 3))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "two jobs had the one licence"
    cli("submit", file, "--no-local")
    cli("runner", "last", "--resources", "licence=2", "--resources", "dongle=1")
    assert json.loads(cli("status", "last", "--json").stdout)["state"] == "succeeded"


WIDE = """
name: wide
jobs:
  - {name: a, command: "echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS", resource_requirements: wide}
resource_requirements:
  - {name: wide, num_cpus: 5, memory: 1100m, num_gpus: 2}
"""


@pytest.mark.parametrize(
    ("words", "short"),
    [
        (("--num-cpus", "4", "--memory-gb", "1.5", "--num-gpus", "2"), "5 cores a node; the largest node has 4"),
        (("--num-cpus", "5", "--memory-gb", "1", "--num-gpus", "2"), "1.1 GiB of memory a node; the largest"),
        (("--num-cpus", "5", "--memory-gb", "1.5", "--num-gpus", "1"), "2 GPUs a node; the largest node has 1"),
    ],
)
def test_what_is_measured_can_be_overridden_on_the_command_line(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], short: str
) -> None:
    file = _file(tmp_path, WIDE)
    assert f"It asks for {short}" in cli("run", file, *words, code=1).stdout
    cli("run", file, "--num-cpus", "5", "--memory-gb", "1.5", "--num-gpus", "2")
    assert cli("logs", "last", "a", "--stdout").stdout == "0,1 5\n"


def test_a_runner_added_by_hand_offers_what_its_command_line_says(cli: Cli, tmp_path: Path) -> None:
    cli("submit", _file(tmp_path, WIDE), "--no-local")
    cli("runner", "last", "--num-cpus", "5", "--memory-gb", "1.5", "--num-gpus", "2")
    assert cli("logs", "last", "a", "--stdout").stdout == "0,1 5\n"
    (offer,) = tools.query(tmp_path / "runs/0001", "SELECT cpus_milli, memory_bytes, gpus FROM managers")
    assert offer[:2] == (5000, 3 << 29)


def test_the_summary_warns_of_a_node_that_ran_more_than_it_has(cli: Cli, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    warning = f"ask for {cores + 3} cores of {cores}. It runs {cores + 3} at once whatever they ask for"
    together = f"touch $TORC_JOB_NAME.here; until [ $(ls *.here | wc -l) = {cores + 3} ]; do sleep 0.05; done"
    jobs = "".join(f"  - {{name: j{n}, command: '{together}'}}\n" for n in range(cores + 3))
    file = _file(tmp_path, f"name: deep\njobs:\n{jobs}")
    assert warning in cli("run", file, "--max-parallel-jobs", str(cores + 3)).stdout
    (said,) = json.loads(cli("status", "--json").stdout)["warnings"]
    assert warning in said
    assert "Warning" not in cli("run", file).stdout


OBEYS = """
import os, signal, sys, time

def obey(*_):
    with open("told", "a") as file:
        file.write("told\\n")
    os.kill(os.getppid(), signal.SIGCONT)
    time.sleep(0.5)  # a second signal, which may come within this time, would be told as well
    sys.exit(0)

signal.signal(signal.SIGTERM, obey)
os.kill(os.getppid(), signal.SIGSTOP)  # its worker hears later that the time is over, as on a busy machine
while True:
    time.sleep(10)
"""


def test_a_job_whose_time_is_over_is_told_once_and_has_ended_well_if_it_obeys(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "obeys.py").write_text(OBEYS)
    resources = "resource_requirements: [{name: short, num_cpus: 1, runtime: PT2S}]\n"
    command = f"{shlex.quote(sys.executable)} obeys.py"
    jobs = f"jobs: [{{name: a, command: {command!r}, resource_requirements: short}}]\n"
    cli("run", _file(tmp_path, f"name: obeys\n{resources}{jobs}"))
    assert (tmp_path / "told").read_text() == "told\n"
