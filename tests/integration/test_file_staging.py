"""Files come from and go to real servers, once in a run or for each task, and say in words what went wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from tests.integration.file_servers import Server, ftp_server, http_server
from tests.waiting import until


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    cpu, threads = pf.ExecutorConfig(label="cpu", max_workers_per_node=2), pf.ThreadExecutorConfig(label="threads")
    with pf.load(pf.Config(run_dir=tmp_path_factory.mktemp("runs"), executors=[cpu, threads])) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "web"
    root.mkdir()
    (root / "data.txt").write_text("one\ntwo\nthree\n")
    with http_server(root) as server:
        yield server


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "ftp"
    root.mkdir()
    (root / "data.txt").write_text("from ftp\n")
    with ftp_server(root) as server:
        yield server


@pf.python_app
def read(file: pf.File) -> tuple[str, str]:
    with open(file, encoding="utf-8") as opened:
        return opened.read(), file.filepath


@pf.python_app
def ignore(file: pf.File) -> str:
    return file.filename


@pf.bash_app
def count(inputs: list[pf.File], stdout: object = pf.AUTO_LOGNAME) -> str:
    return f"cat {inputs[0]} {inputs[1]} | wc -l"


@pf.python_app
def write(text: str, outputs: list[pf.File]) -> int:
    with open(outputs[0], "w", encoding="utf-8") as file:
        return file.write(text)


@pf.bash_app
def echo(text: str, outputs: list[pf.File]) -> str:
    return f"echo {text} > {outputs[0]}"


# ---- in -------------------------------------------------------------------------------------


def test_a_url_is_fetched_once_in_a_run_however_many_tasks_take_it(web: Server, run: pf.Run) -> None:
    results = {future.result() for future in read.map([pf.File(f"{web.url}/data.txt")] * 20)}
    ((text, path),) = results
    assert text == "one\ntwo\nthree\n"
    assert path.startswith(str(run.directory / "files"))
    assert web.seen == ["GET /data.txt"]


def test_a_task_that_does_not_look_does_not_fetch(web: Server) -> None:
    assert ignore(pf.File(f"{web.url}/data.txt")).result() == "data.txt"
    assert web.seen == []


def test_files_of_several_kinds_are_one_command_s_inputs(web: Server, ftp: Server, tmp_path: Path) -> None:
    local = tmp_path / "local.txt"
    local.write_text("1\n2\n")
    for other, lines in ((pf.File(f"{web.url}/data.txt"), 5), (pf.File(f"{ftp.url}/data.txt"), 3)):
        future = count(inputs=[pf.File(local), other])
        future.result()
        assert Path(str(future.stdout)).read_text().split() == [str(lines)]


def test_ftp_is_fetched_with_user_and_password(ftp: Server) -> None:
    assert read(pf.File(f"{ftp.url}/data.txt")).result()[0] == "from ftp\n"
    until(lambda: len(ftp.seen) == 1)  # the server notes it when the client has hung up


def test_a_task_can_have_a_copy_of_its_own_which_goes_with_it(web: Server, tmp_path: Path) -> None:
    local = tmp_path / "local.txt"
    local.write_text("local\n")
    for where in (f"{web.url}/data.txt", str(local)):
        file = pf.File(where, stage="task")
        results = [read(file).result() for _ in range(3)]
        assert len({path for _, path in results}) == 3
        assert not any(os.path.exists(path) or path == str(local) for _, path in results)
    assert web.seen == ["GET /data.txt"] * 3


def test_the_program_can_read_it_too(web: Server) -> None:
    file = pf.File(f"{web.url}/data.txt")
    assert Path(file).read_text() == "one\ntwo\nthree\n"
    assert read(file).result()[1] == file.filepath
    assert file.digest() == pf.File(web.root / "data.txt").digest()
    assert web.seen == ["GET /data.txt"]


def test_a_server_that_fails_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "data.txt").write_text("text")
    with http_server(tmp_path / "web", failures=2) as server:
        assert read(pf.File(f"{server.url}/data.txt")).result()[0] == "text"
        assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere.txt", r"http://.*/nowhere.txt cannot be fetched on \S+: there is no such file"),
        (None, r"http://127.0.0.1:9/x cannot be fetched on \S+ after 3 tries: .*See that this node reaches"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_url_and_node(web: Server, path: str | None, message: str) -> None:
    with pytest.raises(pf.StagingError, match=message):
        read(pf.File("http://127.0.0.1:9/x" if path is None else web.url + path)).result()


def test_a_password_is_not_in_messages(ftp: Server) -> None:
    with pytest.raises(pf.StagingError, match=r"ftp://me:\*\*\*@127.0.0.1.*/none cannot be fetched") as raised:
        read(pf.File(f"{ftp.url}/none")).result()
    assert "secret" not in str(raised.value)


def test_an_unknown_kind_of_url_is_told() -> None:
    with pytest.raises(
        pf.ConfigError, match=r"there is no staging for htp:// \(did you mean|entry-point group pilotflow.staging"
    ):
        read(pf.File("htp://host/file")).result()


# ---- out ------------------------------------------------------------------------------------


def test_what_a_task_makes_is_stored_and_others_take_it_from_the_run_directory(ftp: Server) -> None:
    made = write("made here\n", outputs=[pf.File(f"{ftp.url}/new.txt")])
    assert read(made.outputs[0]).result()[0] == "made here\n"
    assert (ftp.root / "new.txt").read_text() == "made here\n"
    assert [line.split()[0] for line in ftp.seen] == ["STOR"]
    echo("command", outputs=[pf.File(f"{ftp.url}/new.txt")]).result()
    assert (ftp.root / "new.txt").read_text() == "command\n"


def test_promised_paths_may_be_files(tmp_path: Path) -> None:
    made = write("text", outputs=[pf.File(tmp_path / "out.txt")])
    assert read(made.outputs[0]).result() == ("text", str(tmp_path / "out.txt"))
    assert made.outputs[0].result() == pf.File(tmp_path / "out.txt")


def test_what_was_not_made_is_told_and_not_stored(ftp: Server) -> None:
    @pf.python_app
    def lazy(outputs: list[pf.File]) -> None: ...

    with pytest.raises(pf.MissingOutputs, match=r"new.txt"):
        lazy(outputs=[pf.File(f"{ftp.url}/new.txt")]).result()
    assert ftp.seen == []


def test_what_cannot_be_stored_is_told(web: Server) -> None:
    with pytest.raises(pf.StagingError, match=r"http://.*/new.txt cannot be stored on \S+"):
        write("text", outputs=[pf.File(f"{web.url}/new.txt")]).result()


@pytest.mark.parametrize("executor", ["cpu", "threads"])
@pytest.mark.parametrize("kind", ["python", "bash"])
def test_output_is_stored_at_a_url_however_the_task_ends(kind: str, executor: str, ftp: Server) -> None:
    plain: Any = work if kind == "python" else work_in_bash
    app = plain.options(executors=executor, stdout=pf.File(f"{ftp.url}/out"), stderr=(pf.File(f"{ftp.url}/err"), "w"))
    future = app(1, inputs=[], outputs=[])
    assert future.result(60) == 0
    assert [(ftp.root / name).read_text() for name in ("out", "err")] == ["out 1\n", "err 1\n"]
    assert Path(future.stdout).read_text() == "out 1\n", "it is in the run directory as well"
    with pytest.raises(ValueError if kind == "python" else pf.BashExitError):
        app(2, inputs=[], outputs=[], code=3).result(60)
    assert [(ftp.root / name).read_text() for name in ("out", "err")] == ["out 2\n", "err 2\n"]
    both = pf.File(f"{ftp.url}/both")
    assert plain(3, inputs=[], outputs=[], stdout=both, stderr=both).result(60) == 0
    assert sorted((ftp.root / "both").read_text().splitlines()) == ["err 3", "out 3"]


def test_output_that_cannot_be_stored_is_told_with_what_the_task_has_raised(web: Server) -> None:
    nowhere = pf.File(f"{web.url}/out")
    with pytest.raises(pf.StagingError, match=r"http://.*/out cannot be stored on \S+"):
        work(1, inputs=[], outputs=[], stdout=nowhere).result(60)
    error = work(2, inputs=[], outputs=[], code=3, stdout=nowhere).exception(60)
    assert isinstance(error, ValueError)
    assert error.args == (2,)
    assert "out cannot be stored on" in "".join(traceback.format_exception(error))


# ---- every way to say where files are -------------------------------------------------------

TARGETS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "str": (str, ""),
    "path": (lambda path: path, ""),
    "pair": (lambda path: (str(path), "a"), ""),
    "anew": (lambda path: (path, "w"), "old\n"),
    "File": (pf.File, ""),
    "File anew": (lambda path: (pf.File(path), "w"), "old\n"),
    "auto": (lambda _: pf.AUTO_LOGNAME, ""),
}
"""What `stdout` and `stderr` may be, and what is overwritten."""


@pf.python_app
def work(number: int, inputs: list[pf.File], outputs: list[object], code: int = 0) -> int:
    print("out", number)
    print("err", number, file=sys.stderr)
    for output in outputs:
        Path(output).write_text("".join(Path(path).read_text() for path in inputs))  # type: ignore[arg-type]
    if code:
        raise ValueError(number)
    return 0


@pf.bash_app
def work_in_bash(number: int, inputs: list[pf.File], outputs: list[object], code: int = 0) -> str:
    copies = "".join(f"cat {' '.join(map(str, inputs))} > {output}; " for output in outputs)
    return f"echo out {number}; echo err {number} >&2; {copies}exit {code}"


@pytest.mark.parametrize("app", [work, work_in_bash], ids=["python", "bash"])
@pytest.mark.parametrize("kind", TARGETS)
def test_inputs_outputs_and_streams_go_together_in_every_form(
    app: Any, kind: str, web: Server, ftp: Server, tmp_path: Path
) -> None:
    make, before = TARGETS[kind]
    (tmp_path / "local.txt").write_text("local\n")
    streams = {"stdout": tmp_path / "deep" / "out.txt", "stderr": tmp_path / "err.txt"}
    for path in streams.values():
        path.parent.mkdir(exist_ok=True)
        path.write_text(before)
    inputs = [pf.File(f"{web.url}/data.txt"), pf.File(f"{ftp.url}/data.txt"), pf.File(tmp_path / "local.txt")]
    outputs = [str(tmp_path / "a"), tmp_path / "b", pf.File(tmp_path / "c"), pf.File(f"{ftp.url}/d")]
    where = {word: make(path) for word, path in streams.items()}
    future = app(1, inputs=inputs, outputs=outputs, **where)
    assert future.result(60) == 0
    content = "one\ntwo\nthree\nfrom ftp\nlocal\n"
    assert [read(pf.File(Path(made.result()))).result()[0] for made in future.outputs] == [content] * 4
    assert (ftp.root / "d").read_text() == content
    if kind != "auto":
        assert (future.stdout, future.stderr) == tuple(map(str, streams.values()))
    assert (Path(future.stdout).read_text(), Path(future.stderr).read_text()) == ("out 1\n", "err 1\n")
    failed = app(2, inputs=inputs, outputs=[], code=3, **where)
    with pytest.raises(ValueError if app is work else pf.BashExitError) as caught:
        failed.result(60)
    assert "err 2\n" in Path(failed.stderr).read_text()
    if isinstance(caught.value, pf.BashExitError):
        assert (caught.value.exit_code, caught.value.stderr) == (3, failed.stderr)
        assert caught.value.stderr_tail.endswith("err 2")
    with pytest.raises(pf.DependencyError, match="err 2") as chain:
        read(failed).result(60)
    assert failed.stderr in str(chain.value)


# ---- in the cache ---------------------------------------------------------------------------


def test_calls_with_files_are_known_by_what_is_in_them(web: Server, ftp: Server, tmp_path: Path) -> None:
    app = pf.python_app(cache=True)(lambda file: len(Path(file).read_text()))
    local = tmp_path / "local.txt"
    local.write_text("abc")
    for where, path in (
        (str(local), local),
        (f"{web.url}/data.txt", web.root / "data.txt"),
        (f"{ftp.url}/data.txt", ftp.root / "data.txt"),
    ):
        length = len(path.read_text())
        assert app(pf.File(where)).result() == length
        assert pf.why_not_cached(app(pf.File(where))).cached
        path.write_text("of other length now")
        again = app(pf.File(where))
        assert not pf.why_not_cached(again).cached
        assert again.result() == len("of other length now")
    with pytest.raises(pf.CacheKeyError, match=r"none\.txt cannot be looked at .*no such file.*cache_by='name'"):
        app(pf.File(f"{web.url}/none.txt"))
    with pytest.raises(
        pf.CacheKeyError, match=r":9/x cannot be looked at .*Cannot connect.*See that this node reaches"
    ):
        app(pf.File("http://127.0.0.1:9/x"))


def test_a_cached_call_that_makes_a_file_runs_again_when_that_is_gone(tmp_path: Path, ftp: Server) -> None:
    app = write.options(cache=True)
    path = tmp_path / "out.txt"
    for _ in range(2):
        assert app("text", outputs=[pf.File(path)]).result() == 4
        assert path.read_text() == "text"
        path.unlink()
    assert app("remote", outputs=[pf.File(f"{ftp.url}/kept.txt")]).result() == 6
    again = app("remote", outputs=[pf.File(f"{ftp.url}/kept.txt")])
    assert pf.why_not_cached(again).cached
    assert read(again.outputs[0]).result()[0] == "remote"
    until(lambda: len(ftp.seen) > 1, what="the note of what was read")
    assert [line.split()[0] for line in ftp.seen] == ["STOR", "RETR"]


def test_where_output_goes_counts_in_the_cache_and_not_what_is_there(tmp_path: Path, ftp: Server) -> None:
    app = work.options(cache=True)
    for target in (pf.File(tmp_path / "out"), (pf.File(f"{ftp.url}/out"), "w")):
        first, second = (app(1, inputs=[], outputs=[], stdout=target) for _ in range(2))
        assert (first.result(60), second.result(60)) == (0, 0)
        assert not pf.why_not_cached(first).cached
        assert pf.why_not_cached(app(1, inputs=[], outputs=[], stdout=target)).cached
    assert (tmp_path / "out").read_text() == (ftp.root / "out").read_text() == "out 1\n"


# ---- plug-ins -------------------------------------------------------------------------------


def test_a_package_can_bring_staging_for_its_own_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tape.py").write_text(
        "import pathlib\n"
        "class Tape:\n"
        "    def fetch(self, url, path): pathlib.Path(path).write_text('from ' + url)\n"
        "    def store(self, path, url): raise NotImplementedError\n"
        "    def fingerprint(self, url): return 'always'\n"
    )
    package = tmp_path / "tape-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: tape\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[pilotflow.staging]\ntape = tape:Tape\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "runs")):
        assert read(pf.File("tape://archive/run7")).result()[0] == "from tape://archive/run7"
        assert ignore.options(cache=True)(pf.File("tape://archive/run7")).result() == "run7"
        with pytest.raises(
            pf.StagingError, match=r"tape://archive/new cannot be stored .* tape:// cannot be written to"
        ):
            write("text", outputs=[pf.File("tape://archive/new")]).result()


def test_a_copy_of_its_own_lies_in_the_task_s_scratch_directory_if_it_has_one(web: Server) -> None:
    @pf.python_app(scratch=True)
    def place(file: pf.File) -> tuple[str, str]:
        return str(pf.current_task().scratch), file.filepath

    scratch, path = place(pf.File(f"{web.url}/data.txt", stage="task")).result()
    assert path.startswith(scratch)
    assert not os.path.exists(path)
