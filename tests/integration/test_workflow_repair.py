"""Runs that are repaired: what failed, what has changed, what lacked memory or time; runners, archives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import workflow_tools as tools
from tests.integration.workflow_tools import Cli
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)  # many processes, one after another, on a machine that may be busy

FAILS_ONCE = """
name: fragile
jobs:
  - {name: good, command: "echo x >> good.txt"}
  - {name: bad, command: "test -e fixed"}
  - {name: after, command: "echo y >> after.txt", depends_on: [bad, good]}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return tools.command_line(tmp_path)


def test_what_failed_runs_again_with_what_it_had_cancelled_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(FAILS_ONCE)
    cli("run", "w.yaml", code=1)
    (tmp_path / "fixed").touch()
    plan = json.loads(cli("rerun", "--failed", "--dry-run", "--json").stdout)
    assert [job["name"] for job in plan] == ["bad", "after"]
    done = cli("rerun", "last", "--failed")
    assert "2 of 3 jobs run again" in done.stdout
    assert "3 completed" in done.stdout
    assert (tmp_path / "good.txt").read_text() == "x\n"
    assert [row["attempt"] for row in json.loads(cli("results", "last", "-j", "bad", "--json").stdout)] == [1, 2]
    assert "nothing is to run again" in cli("rerun", "--failed", code=2).stderr


def test_a_changed_file_runs_only_what_changed_and_what_depends_on_it(cli: Cli, tmp_path: Path) -> None:
    text = """
name: change
files:
  - {name: raw, path: raw.txt}
  - {name: half, path: half.txt}
jobs:
  - {name: other, command: "echo o >> other.log"}
  - {name: read, command: "cat raw.txt > half.txt; echo r >> read.log", input_files: [raw], output_files: [half]}
  - {name: last, command: "cat half.txt; echo l >> last.log", input_files: [half]}
"""

    def counts() -> list[int]:
        return [len((tmp_path / f"{name}.log").read_text().split()) for name in ("other", "read", "last")]

    (tmp_path / "w.yaml").write_text(text)
    (tmp_path / "raw.txt").write_text("1\n")
    cli("run", "w.yaml")
    assert "nothing is to run again" in cli("rerun", code=2).stderr
    os.utime(tmp_path / "raw.txt", (1, 1))
    assert "nothing is to run again" in cli("rerun", code=2).stderr, "its content is the same"
    (tmp_path / "raw.txt").write_text("2\n")
    assert "raw.txt changed" in cli("rerun").stdout
    assert counts() == [1, 2, 2]
    (tmp_path / "half.txt").unlink()
    assert "half.txt is not there" in cli("rerun").stdout
    assert counts() == [1, 3, 3]
    (tmp_path / "w.yaml").write_text(
        text.replace("cat half.txt;", "cat half.txt; true;").replace(
            "jobs:", "jobs:\n  - {name: first, command: 'true'}"
        )
    )
    plan = json.loads(cli("rerun", "--dry-run", "--json").stdout)
    assert [(job["name"], job["why"]) for job in plan] == [("first", "it is new"), ("last", "its command changed")]
    cli("rerun")
    assert counts() == [1, 3, 4]
    assert len(json.loads(cli("results", "last", "-j", "read", "--json").stdout)) == 3, "its history is kept"


LACKING = """
name: lacking
resource_requirements:
  - {name: small, num_cpus: 1, memory: 60m, runtime: PT10M}
  - {name: short, num_cpus: 1, memory: 500m, runtime: PT2S}
jobs:
  - {name: fat, resource_requirements: small, command: "python3 fat.py"}
  - {name: slow, resource_requirements: short, command: "test -e slow || { touch slow; sleep 60; }"}
  - {name: wrong, command: "exit 3"}
"""


FAT = """
import pathlib, time
again = pathlib.Path("fat").exists()
pathlib.Path("fat").touch()
x = bytearray((65 if again else 200) << 20)
time.sleep(1.5 if again else 60)
"""
"""Takes at first much more than 60 MiB, for as long as it takes to be seen, and later a little more."""


def test_one_recover_repairs_a_job_that_lacked_memory_and_one_that_lacked_time(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(LACKING)
    (tmp_path / "fat.py").write_text(FAT)
    done = cli("run", "w.yaml", code=1)
    assert "fat failed" in done.stdout
    assert "slow terminated" in done.stdout
    plan = json.loads(cli("recover", "--dry-run", "--json").stdout)
    assert {one["name"]: one["kind"] for one in plan["again"]} == {"fat": "memory", "slow": "runtime"}
    assert [one["name"] for one in plan["left"]] == ["wrong"]
    done = cli("recover", code=1)
    assert "2 completed, 1 failed" in done.stdout
    states = {job["name"]: job["state"] for job in json.loads(cli("jobs", "--json").stdout)}
    assert states == {"fat": "completed", "slow": "completed", "wrong": "failed"}
    assert "--retry-unknown" in cli("recover", code=2).stderr
    cli("correct", "w.yaml", "--from", "last", "--output", "right.yaml")
    assert "memory: 60m" not in (tmp_path / "right.yaml").read_text()


def test_jobs_that_lack_memory_are_helped_while_the_run_runs_if_that_is_wanted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        LACKING.replace("exit 3", "true").replace("sleep 60", "true").replace("PT2S", "PT5M")
    )
    (tmp_path / "fat.py").write_text(FAT)
    assert "3 completed" in cli("run", "w.yaml", "--auto-recover").stdout
    rows = json.loads(cli("results", "last", "-j", "fat", "--json").stdout)
    assert [row["how"] for row in rows] == ["failed", "completed"]
    assert "tried again" in rows[0]["words"]


HANDLED = """
name: handled
failure_handlers:
  - name: fix
    rules:
      - {exit_codes: [7], recovery_script: 'echo "fixing $TORC_RETURN_CODE"; touch fixed', max_retries: 2}
      - {match_all_exit_codes: true, max_retries: 1}
jobs:
  - {name: a, command: "test -e fixed || exit 7; echo $TORC_ATTEMPT_ID", failure_handler: fix}
  - {name: b, command: "exit 8", failure_handler: fix}
actions:
  - {trigger_type: on_workflow_start, action_type: run_commands, commands: ["echo start >> acts"]}
  - {trigger_type: on_jobs_complete, action_type: run_commands, jobs: [a], commands: ["echo a >> acts", "false"]}
  - {trigger_type: on_worker_start, action_type: run_commands, commands: ["echo worker $PILOTFLOW_NODE >> acts"]}
  - {trigger_type: on_worker_complete, action_type: run_commands, commands: ["echo left >> acts"]}
  - {trigger_type: on_workflow_complete, action_type: run_commands, commands: ["echo end >> acts"]}
"""


def test_handlers_fix_what_they_can_and_actions_fire_from_the_run_itself(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(HANDLED)
    done = cli("run", "w.yaml", code=1)
    assert "1 completed, 1 failed" in done.stdout
    assert cli("logs", "last", "a", "--stdout").stdout == "fixing 7\n2\n"
    rows = json.loads(cli("results", "--json").stdout)
    assert [(row["name"], row["attempt"], row["exit_code"]) for row in rows] == [("a", 1, 7), ("a", 2, 0), ("b", 1, 8)]
    acts = (tmp_path / "acts").read_text().splitlines()
    assert acts[0] == "start"
    assert acts[-2:] == ["end", "left"]
    assert {line.split()[0] for line in acts[1:-2]} == {"worker", "a"}
    events = cli("events").stdout
    assert "`false` failed with exit code 1" in events


def test_runners_of_both_kinds_share_a_run_and_no_job_runs_twice(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    begin = tools.MARK.replace('"', "")
    jobs = "".join(f"  - {{name: j{n}, command: '{begin}; {tools.GATE}'}}\n" for n in range(60))
    (tmp_path / "w.yaml").write_text(f"name: shared\njobs:\n{jobs}")
    started = json.loads(cli("submit", "w.yaml", "--no-local", "--json").stdout)
    run = Path(started["directory"])
    argv = [sys.executable, "-m", "pilotflow", "runner", "last"]
    runners = [
        subprocess.Popen([*argv, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for words in (["--num-cpus", "1"], ["--max-parallel-jobs", "2"], ["--num-cpus", "1", "--idle-limit", "60s"])
    ]
    try:
        until(lambda: len(tools.marks(run)) == 4, "each of them has as many jobs as it takes")
        (tmp_path / "go").touch()
        assert cli("attach").stdout.count("60 completed") == 1
        said = [runner.communicate(timeout=60)[0] for runner in runners]
    finally:
        for runner in runners:
            runner.kill()
    assert all("has ended" in text for text in said), said
    assert tools.marks(run) == {f"j{n}": [1] for n in range(60)}
    assert tools.query(run, "SELECT COUNT(DISTINCT manager) FROM results") == [(3,)]
    until(lambda: tools.nothing_left(run), "no process of the run is left")


def test_a_run_goes_into_an_archive_and_comes_back_and_can_be_deleted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("name: small\njobs:\n  - {name: a, command: echo hello}\n")
    cli("run", "w.yaml")
    cli("export", "last", "-o", "run.tgz")
    assert "--yes" in cli("delete", "1", code=2).stderr
    whole = (tmp_path / "run.tgz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    assert "Cannot read the archive cut.tgz" in cli("import", "cut.tgz", code=2).stderr
    cli("delete", "1", "--yes")
    assert not (tmp_path / "runs/0001").exists()
    cli("import", "run.tgz")
    assert cli("logs", "last", "a").stdout.endswith("hello\n")
    assert json.loads(cli("status", "last", "--json").stdout)["state"] == "succeeded"


def test_a_run_whose_managers_outlive_its_program_is_not_deleted_but_exported_whole(cli: Cli, tmp_path: Path) -> None:
    run = tools.a_run(tmp_path, tools.a_workflow(tools.a_job(0, "echo first"), tools.a_job(1, "sleep 100")))
    program = tools.Program(run)
    until(lambda: tools.states(run).get("completed") and tools.states(run).get("running"), "one ends, one runs")
    program.kill()
    assert "pilotflow resume 0001 --detach && pilotflow cancel 0001" in cli("delete", "1", "--yes", code=2).stderr
    cli("export", "1", "-o", "run.tgz")
    cli("resume", "1", "--detach")
    cli("cancel", "1")
    until(lambda: tools.nothing_left(run), "everything of the run is gone")
    cli("delete", "1", "--yes")
    cli("import", "run.tgz")
    assert json.loads(cli("status", "last", "--json").stdout)["jobs"]["completed"] == 1


def test_ctrl_c_leaves_a_run_that_can_be_resumed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "name: cut\njobs:\n  - {name: a, command: 'echo a >> log'}\n"
        "  - {name: b, command: 'test -e go || sleep 60; echo b >> log', depends_on: [a]}\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-m", "pilotflow", "run", "w.yaml"], cwd=tmp_path, stdout=subprocess.PIPE
    )
    until((tmp_path / "log").exists, "the first job has run")
    run = tmp_path / "runs/0001"
    until(lambda: tools.states(run) == {"completed": 1, "running": 1}, "that is recorded, and the second runs")
    program.send_signal(2)
    said, _ = program.communicate(timeout=60)
    assert program.returncode == 130
    assert b"pilotflow resume 0001" in said
    (tmp_path / "go").touch()
    cli("resume")
    assert (tmp_path / "log").read_text() == "a\nb\n"
