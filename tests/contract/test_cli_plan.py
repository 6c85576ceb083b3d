"""`pilotflow plan` and `slurm generate`, as a user meets them on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.command_line import ROOT, pilotflow

STAGED = "tests/workflows/preprocess_then_train.yaml"
EQUAL = "tests/workflows/equal_jobs.yaml"


def test_plan_compares_recommends_and_says_what_to_write() -> None:
    done = pilotflow("plan", STAGED, "--site", "kestrel", "--queue-wait", "10m")
    assert (done.returncode, done.stderr) == (0, "")
    golden = ROOT / "tests/golden/plan_preprocess_then_train.txt"
    assert done.stdout == golden.read_text(encoding="utf-8")
    lines = yaml.safe_load(done.stdout.split("These lines request it:")[1])
    assert [entry["walltime"] for entry in lines["slurm_schedulers"]] == ["00:40:00", "05:00:00"]


def test_plan_as_json_has_every_way() -> None:
    done = pilotflow("plan", STAGED, "--site", "kestrel", "--queue-wait", "10m", "--json")
    data = json.loads(done.stdout)
    assert {choice["way"] for choice in data["choices"]} == {"one large", "per step", "as written"}
    (best,) = [choice for choice in data["choices"] if choice["recommended"]]
    assert best is not None
    assert best["makespan_s"] == pytest.approx(2 * 600 + 2 * 1 + 0.6 + 1800 + 4 * 3600)
    assert yaml.safe_load(data["yaml"])["slurm_schedulers"][0]["name"] == best["batch_jobs"][0]["scheduler"]


def test_a_wait_that_nobody_knows_is_named_as_an_assumption() -> None:
    said = pilotflow("plan", STAGED, "--site", "kestrel").stdout
    assert "no batch job waits in the queue, as nobody here can be asked about that; give --queue-wait" in said


def test_what_generate_writes_can_be_planned_and_created(tmp_path: Path) -> None:
    target = tmp_path / "out.yaml"
    done = pilotflow("slurm", "generate", EQUAL, "--site", "dane", "--account", "me", "-o", str(target))
    assert (done.returncode, done.stdout) == (0, "")
    assert f"written: {target}" in done.stderr
    assert "node-hours" in done.stderr
    again = pilotflow("plan", str(target), "--site", "dane").stdout
    assert "*   as written   1 x 1 node pbatch" in again
    assert pilotflow("create", str(target)).returncode == 0
    refused = pilotflow("slurm", "generate", str(target), "--site", "dane")
    assert refused.returncode == 2
    assert "has slurm_schedulers of its own. To replace them say --overwrite." in refused.stderr
    assert pilotflow("slurm", "generate", str(target), "--site", "dane", "--overwrite").returncode == 0


def test_a_dry_run_shows_what_would_be_asked_of_the_site(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    needs = "resource_requirements: [{name: r, num_cpus: 8, runtime: PT1H}]"
    jobs = 'jobs: [{name: "a_{i}", command: x, resource_requirements: r, parameters: {i: "1:26"}}]'
    file.write_text(f"name: w\n{needs}\n{jobs}\n")
    said = pilotflow("create", str(file), "--site", "dane").stdout
    assert "planned: 1 x 2 nodes of partition 'pbatch' for 1h 15m each; done in 1h 1s and the wait in the queue" in said
    data = json.loads(pilotflow("create", str(file), "--site", "dane", "--json").stdout)
    assert (data["planned"]["partition"], data["planned"]["nodes_per_block"]) == ("pbatch", 2)
    assert "planned" not in pilotflow("create", str(file)).stdout, "nobody knows the site"


def test_the_commands_on_the_page_work_in_their_order(tmp_path: Path) -> None:
    text = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    commands = [line.split()[2:] for line in text.splitlines() if line.startswith("$ pilotflow plan")]
    commands += [
        line.split()[2:] for line in text.splitlines() if line.startswith(("$ pilotflow slurm", "$ pilotflow create"))
    ]
    assert len(commands) >= 3
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for command in commands:
        done = pilotflow(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("plan", EQUAL, "--site", "dana"), 2, "there is no site 'dana' (did you mean 'dane'?)"),
        (("plan", EQUAL, "--site", "generic-slurm"), 2, "does not say how many cores its nodes have"),
        (("plan", EQUAL, "--site", "dane", "--partition", "pbig"), 2, "has no partition 'pbig'"),
        (("plan", EQUAL, "--site", "dane", "--queue-wait", "soon"), 2, "'soon' is not a duration"),
        (("plan", EQUAL, "--site", "dane", "--from", "77"), 2, "77"),
        (("plan", EQUAL, "--site", "workstation", "--queue-wait", "1h"), 2, "about a site with a batch system"),
        (("slurm", "generate", EQUAL, "--site", "workstation"), 2, "this is no site with Slurm"),
        (("plan", "tests/workflows/resource_classes.yaml", "--site", "dane"), 1, "model_training would not end"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = pilotflow(*arguments)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
