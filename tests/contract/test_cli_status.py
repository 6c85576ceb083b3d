"""`pilotflow status`: a run answers from another terminal, and a run that is over or frozen is told apart."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import pilotflow as pf
from pilotflow.cli.status import Asked, plainly_asked
from pilotflow.errors import InfrastructureError, RunClosed
from pilotflow.messages.codec import Envelope, encode
from pilotflow.messages.records import Refused
from pilotflow.runtime.connection import Connection, Keys, read_connection, write_connection
from pilotflow.runtime.control import ask_status
from pilotflow.runtime.packets import new_buffer, receive, send
from tests.command_line import ROOT, pilotflow
from tests.waiting import until


def status(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return pilotflow("status", *arguments, cwd=cwd)


def test_a_run_says_what_waits_and_works_until_it_is_over(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=2, run_dir=tmp_path / "runs")) as run:
        pf.python_app(len)([]).result()
        done = status(cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert run.run_id in done.stdout
        assert str(run.directory) in done.stdout
        until(lambda: "tasks so far  1 done" in status(cwd=tmp_path).stdout)  # the record is half a second behind
        assert f"program {os.getpid()}, interchange " in done.stdout
        assert [line.split() for line in done.stdout.splitlines() if line.startswith("local ")] == [
            ["local", "0", "0", "2"]
        ]
        (block,) = [line for line in done.stdout.splitlines() if line.startswith("local-0 ")]
        assert block.split()[:5] == ["local-0", "1", "0", "2", "idle"]
        said = json.loads(status("runs/0001", "--json", cwd=tmp_path).stdout)
        assert (said["run_id"], said["directory"], said["dropped_messages"]) == (run.run_id, str(run.directory), 0)
        assert said["executors"] == [{"executor": "local", "queued": 0, "leased": 0, "slots": 2}]
        assert said["blocks"][0]["block"] == "local-0"
        assert (said["state"], said["tasks"]) == ("running", {"done": 1, "failed": 0, "cancelled": 0})
    done = status("runs/latest/connection.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Run 0001 has ended: 1 done.\nIt began on ")
    assert f"{run.directory}/pilotflow.log" in done.stdout
    assert json.loads(status("--json", cwd=tmp_path).stdout)["state"] == "ended"


def test_where_only_programs_have_run_the_list_of_workflows_says_so_and_other_commands_what_to_ask(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "runs")):
            pass
    assert pilotflow("list", cwd=tmp_path).stdout == (
        f"No workflow has been run in {tmp_path}/runs. There are 2 runs of Python programs: `pilotflow status 0002` tells "
        "of the last.\n"
    )
    done = pilotflow("jobs", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "is the run of a Python program, not of a workflow. `pilotflow status 0002` says how it stands" in done.stderr
    )


def test_a_run_that_is_over_and_keeps_no_record_says_where_its_log_is(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "runs", store=False)) as run:
        pass
    done = status(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"Run {run.run_id} is over. Its log is {run.directory}/pilotflow.log.\n"


def test_a_place_without_a_run_is_exit_code_2_with_words(tmp_path: Path) -> None:
    done = status(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"There is no run in {tmp_path}/runs. Start one with `pilotflow run WORKFLOW`, or ")
    (tmp_path / "runs" / "0001").mkdir(parents=True)
    done = status("runs", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path}/runs/0001 is not the directory of a run that has begun: it has no conn")
    (tmp_path / "runs" / "0001" / "connection.json").write_text("{}")
    done = status("runs", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path}/runs/0001/connection.json is not a connection file of this pilotflow: ")
    assert "Traceback" not in done.stderr


ASKING = ["status", "explain", "blocks", "support-bundle", "jobs", "results", "logs", "events", "resources", "attach"]


@pytest.mark.parametrize("verb", ASKING)
def test_all_commands_have_the_same_words_for_runs_that_are_not_there(tmp_path: Path, verb: str) -> None:
    (tmp_path / "runs" / "0002").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    how = "Name a run by its number, as `last`, or by its directory; `pilotflow list` shows those of workflows.\n"
    for name, words in (
        ("9", f"There is no run 9 in {tmp_path}/runs. The last one is 0002. {how}"),
        ("lst", f"There is no run lst. Did you mean last? {how}"),
        ("nowhere/0001", f"There is no run nowhere/0001. {how}"),
        ("empty", f"There is no run in {tmp_path}/empty. Start one with `pilotflow run WORKFLOW`, or say where "),
    ):
        done = pilotflow(verb, name, *(["1"] if verb == "explain" else []), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(words)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], Asked()),
        (["3", "--json"], Asked("3", as_json=True)),
        (["--run-dir", "there", "last"], Asked("last", Path("there"))),
        (["--run-dir"], None),
        (["--run-dir", "--json"], None),
        (["--run-dir=there"], None),
        (["1", "2"], None),
        (["--jsn"], None),
        (["-h"], None),
        ([""], None),
        (["--", "1"], None),
    ],
)
def test_plain_words_are_read_at_once_and_all_others_by_who_knows_all_options(
    words: list[str], asked: Asked | None
) -> None:
    assert plainly_asked(words) == asked


def test_the_status_of_a_workflow_needs_few_imports_and_is_the_same_however_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "name: w\njobs:\n  - {name: a, command: 'true'}\n  - {name: b, command: 'false'}\n"
    )
    assert pilotflow("run", "w.yaml", cwd=tmp_path).returncode == 1
    program = (
        "import sys; from pilotflow.cli.main import main; sys.argv = ['pilotflow', 'status', '--json']; main();"
        "assert not {'typer', 'pydantic', 'rich', 'msgspec', 'zmq', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    )
    argv = [sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["jobs"]["completed"] == 1
    assert done.stdout == status("--json", "--run-dir=runs", cwd=tmp_path).stdout
    assert status("1", cwd=tmp_path).stdout == status("--", "1", cwd=tmp_path).stdout


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket where an interchange could listen; its path is short enough for one."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(f"{folder}/control")
        sock.listen()
        yield sock


def connection_to(endpoint: str, host: str = "") -> Connection:
    host = host or socket.gethostname()
    return Connection("0001-x", 1, "/runs/0001", (), (), (endpoint,), Keys(), 1 << 20, 30.0, os.getpid(), host)


def test_an_interchange_that_does_not_answer_is_not_waited_for(listener: socket.socket) -> None:
    with pytest.raises(InfrastructureError, match=r"has not answered within 0\.05 s"):
        ask_status(connection_to(f"unix:{listener.getsockname()}"), 0.05)


def answering(listener: socket.socket, answer: Callable[[socket.socket], None]) -> threading.Thread:
    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            receive(peer, new_buffer(), 0)
            answer(peer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_an_interchange_of_another_version_is_heard(listener: socket.socket) -> None:
    def refuse(peer: socket.socket) -> None:
        send(peer, b"garbage", (), 0)
        send(peer, encode(Envelope(0, 0, 0, 0, False, [Refused("you speak protocol 0")])), (), 0)

    thread = answering(listener, refuse)
    with pytest.raises(InfrastructureError, match="Run 0001-x refuses to answer: you speak protocol 0"):
        ask_status(connection_to(f"unix:{listener.getsockname()}"), 30.0)
    thread.join()


def test_an_interchange_that_ends_while_it_is_asked_is_a_run_that_is_over(listener: socket.socket) -> None:
    thread = answering(listener, lambda peer: None)
    with pytest.raises(RunClosed, match="Run 0001-x is over"):
        ask_status(connection_to(f"unix:{listener.getsockname()}"), 30.0)
    thread.join()


def test_a_run_of_another_host_says_where_to_ask() -> None:
    with pytest.raises(InfrastructureError, match="listens for commands on host far-away only"):
        ask_status(connection_to("unix:/nowhere", host="far-away"), 1.0)


def test_a_connection_file_of_a_later_version_may_have_more_in_it(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    write_connection(path, connection_to("unix:/nowhere"))
    data = json.loads(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**data, "more": 1}))
    assert read_connection(path) == connection_to("unix:/nowhere")
