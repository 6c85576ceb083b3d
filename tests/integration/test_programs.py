"""Whole programs: where they are read from, what their workers import, and what is said at their end."""

from __future__ import annotations

from pathlib import Path

from tests.integration.scripts import run_script


def test_a_program_read_from_standard_input_works(tmp_path: Path) -> None:
    code = (
        "import pilotflow as pf\n"
        "@pf.python_app\n"
        "def square(x): return x * x\n"
        "with pf.load(pf.Config.for_this_machine(max_workers=1)):\n"
        "    print(square(square(3)).result())\n"
    )
    assert run_script(tmp_path, "", "-", stdin=code).stdout == "81\n"


def test_two_runs_follow_each_other_in_one_program(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import pilotflow as pf

        @pf.python_app
        def square(x): return x * x

        for i in (2, 3):
            with pf.load(pf.Config.for_this_machine(max_workers=1)) as run:
                print(square(i).result(), run.directory.name)
        try:
            square(4)
        except pf.RunClosed as error:
            print(error)
        """,
    )
    assert done.stdout.splitlines() == [
        "4 0001",
        "9 0002",
        "There is no run to submit to. Call apps inside `with pilotflow.load(): ...`.",
    ]


def test_a_module_beside_the_script_is_the_one_that_workers_import_whatever_is_installed(tmp_path: Path) -> None:
    (installed := tmp_path / "installed").mkdir()
    for directory, whose in ((tmp_path, "mine"), (installed, "installed")):
        (directory / "helpers.py").write_text(f"def whose(): return {whose!r}\n", encoding="utf-8")
    done = run_script(
        tmp_path,
        f"""
        import sys

        sys.path.append({str(installed)!r})
        import helpers
        import pilotflow as pf

        @pf.python_app
        def imported_there():
            import helpers
            return helpers.whose()

        worker_init = "export PYTHONPATH={installed}"
        provider = pf.LocalProvider(worker_init=worker_init)
        with pf.load(pf.Config(executors=[pf.ExecutorConfig(label="cpu", max_workers_per_node=1, provider=provider)])):
            print(helpers.whose(), pf.python_app(helpers.whose)().result(), imported_there().result())
        """,
    )
    assert done.stdout == "mine mine mine\n"


def test_failures_that_nothing_has_asked_for_are_said_at_the_end_of_the_run(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import concurrent.futures
        import sys
        import pilotflow as pf

        @pf.python_app
        def measure(i):
            raise ValueError(f"no sample {i}")

        config = pf.Config.for_this_machine(max_workers=1)
        with pf.load(config):
            measure(1), measure(2)
        for ask in (lambda future: future.exception(), lambda future: concurrent.futures.wait([future]) and future.exception(0)):
            with pf.load(config):
                asked, _ = measure(3), measure(4)
                ask(asked)
        with pf.load(config):
            try:
                measure(5).result()
            except ValueError:
                pass
        with pf.PilotExecutor(1) as pool:  # as the standard library's pools do
            pool.submit(int, "x")
        """,
    )
    assert done.stderr == (
        "pilotflow: run runs/0001: 2 tasks have failed, and nothing has asked for a result of theirs. "
        "The first: 'measure' (task 1): ValueError: no sample 1\n"
    )


def test_a_program_that_ends_before_its_tasks_says_that_they_are_given_up(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import pilotflow as pf

        @pf.bash_app
        def simulate(i):
            return "sleep 100"

        pf.load(pf.Config.for_this_machine(max_workers=1))
        for i in range(3):
            simulate(i)
        """,
    )
    quiet = """
        import pilotflow as pf

        pf.load(pf.Config.for_this_machine(max_workers=1))
        print([future.result() for future in pf.python_app(abs).map(range(-2, 1))])
    """
    assert run_script(tmp_path, quiet).stderr == ""
    assert "run runs/0001: the program ends, and tasks that have not ended are given up. Leave `with " in done.stderr
