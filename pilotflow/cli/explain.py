"""`pilotflow explain`: why a task is not running, asked from another terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pilotflow.cli.runs import LAST, find_connection, find_directory
from pilotflow.errors import ConfigError
from pilotflow.explanation import NEXT_STEP, Explanation
from pilotflow.runtime.explaining import explain
from pilotflow.units import did_you_mean
from pilotflow.workflow.history import is_workflow, refuse_damaged


def show_explanation(first: str | None, second: str | None, base: Path, as_json: bool) -> None:
    """Ask a run about a task, and print the answer.

    Args:
        first, second: the run (see `find_directory`) and the task's number or name; or the task alone, and the
            newest run in `base` is meant. They may be options that there are not.
        base: where run directories are.
        as_json: print it for programs.

    Raises:
        ConfigError: there is no such run or task.
        RunClosed: the run is over, and its record does not have the task.
        InfrastructureError: nobody who would know answers.
    """
    if first is None or (second is None and (first in LAST or Path(first).is_dir())):
        raise ConfigError("Name a task by its number or its name, such as `pilotflow explain 17`.")
    run, task = ("last", first) if second is None else (first, second)
    for word in filter(None, (first, second)):
        _refuse_option(word)
    directory = find_directory(run, base)
    if is_workflow(directory):
        from pilotflow.workflow.explaining import explain_job
        from pilotflow.workflow.history import open_history

        with open_history(directory) as history:
            explanation = explain_job(history, task)
    else:
        refuse_damaged(directory)
        explanation = explain(find_connection(run, base), task)
    if as_json:
        print(json.dumps(as_data(explanation), indent=2))
    else:
        _print(explanation)


def _refuse_option(word: str) -> None:
    """Say what is wrong with a word that looks like an option; `-1` is a mistaken number."""
    if word[1:].isdecimal() and word.startswith("-"):
        raise ConfigError(f"There is no task {word}: tasks and jobs are counted from 1.")
    if len(word) > 1 and word.startswith("-"):
        hint = did_you_mean(word, ("--json", "--run-dir", "--help"))
        raise ConfigError(f"There is no option {word}{hint}. See `pilotflow explain --help`.")


def as_data(explanation: Explanation) -> dict[str, Any]:
    """The answer for programs; only more may come into it."""
    return {
        "task": explanation.task,
        "name": explanation.name,
        "state": explanation.state.value,
        "reasons": [
            {
                "kind": reason.kind.value,
                "executor": reason.executor or None,
                "text": reason.text,
                "numbers": {number.name: number.value for number in reason.numbers},
                "tasks": list(reason.tasks),
                "block": reason.block or None,
                "node": reason.node or None,
                "advice": reason.advice or None,
            }
            for reason in explanation.reasons
        ],
        "advice": explanation.advice or None,
        "chain": [{"task": one.task, "name": one.name} for one in explanation.chain],
        "chain_length": explanation.links,
        "root": as_data(explanation.root) if explanation.root is not None else None,
    }


def _print(explanation: Explanation) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    headlines = {explanation.headline}
    if explanation.root is not None:
        headlines.add(explanation.root.headline)
    for line in explanation.lines(console.width if console.is_terminal else None):
        text = Text(line)
        if line.strip() in headlines:
            text.stylize("bold")
        elif line.startswith(NEXT_STEP):
            text.stylize("bold", 0, len(NEXT_STEP.rstrip()))
        console.print(text, soft_wrap=True)
