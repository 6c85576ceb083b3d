"""What is wrong in a workflow's file, collected while it is read, with places that are looked up at the end."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from pilotflow.units import nearest
from pilotflow.workflow.reading import Path, Problem, Reading
from pilotflow.workflow.records import Mark, Warned

MAX_SHOWN: Final = 50
_MAX_COMPARED: Final = 2000
_MAX_TEXT: Final = 1500
_MAX_SUGGESTED: Final = 60


class _Finding(NamedTuple):
    path: Path
    key: bool
    text: str


class Findings:
    """Errors and warnings, each about a path in the file.

    What the copies of one entry have wrong in the same place is said once, of the first of them, with the
    number of others.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._errors: dict[tuple[Path, bool, str], _Finding] = {}
        self._more: dict[tuple[Path, bool, str], int] = {}
        self._warnings: dict[tuple[Path, bool, str], _Finding] = {}
        self._suggested = 0
        self.renamed: dict[Path, str] = {}
        """Keys that the file has under another name: the path under the known name, and that other name."""

    @property
    def any_errors(self) -> bool:
        """Whether anything is wrong so far."""
        return bool(self._errors or self._reading.problems)

    def error(self, path: Path, text: str, *, key: bool = False, about: str = "") -> None:
        """Note something wrong; of several `about` the same in one place the first is shown."""
        self._note(self._errors, path, text, key, about)

    def warn(self, path: Path, text: str, *, key: bool = False, about: str = "") -> None:
        """Note something that runs, but is probably not meant."""
        self._note(self._warnings, path, text, key, about)

    def _note(self, into: dict[tuple[Path, bool, str], _Finding], path: Path, text: str, key: bool, about: str) -> None:
        text = on_one_line(text)
        at = (path, key, about or text)
        if at not in into:
            into[at] = _Finding(path, key, text)
        else:
            self._more[at] = self._more.get(at, 0) + 1

    def suggest(self, name: str, valid: Collection[str]) -> str:
        """How a sentence about an unknown name ends: with the nearest valid one, with all if they are few, or so."""
        self._suggested += 1
        if self._suggested > _MAX_SUGGESTED or not valid:
            return "."
        if len(valid) <= _MAX_COMPARED:
            match = nearest(name, valid)
        else:
            like = [each for each in valid if each[:2] == name[:2] and abs(len(each) - len(name)) < 4]
            found = difflib.get_close_matches(name, like[:_MAX_COMPARED], n=1)
            match = found[0] if found else None
        if match is not None:
            return f" (did you mean '{match}'?)."
        return f". Valid: {', '.join(sorted(valid))}." if len(valid) <= 8 else "."

    def errors(self) -> list[Problem]:
        """Everything that is wrong, in the file's order."""
        return sorted(
            {*self._reading.problems, *self._placed(self._errors)}, key=lambda problem: (problem.at, problem.text)
        )

    def warnings(self) -> tuple[Warned, ...]:
        """Everything that is probably not meant, in the file's order."""
        placed = sorted(self._placed(self._warnings), key=lambda problem: (problem.at, problem.text))
        return tuple(Warned(at=problem.at, text=problem.text) for problem in placed)

    def _placed(self, findings: dict[tuple[Path, bool, str], _Finding]) -> Iterable[Problem]:
        if not findings:
            return
        paths = {each.path: self._as_written(each.path) for each in findings.values()}
        wanted = {path[:length] for path in paths.values() for length in range(len(path) + 1)}
        places = self._reading.locate(wanted)
        for at, each in findings.items():
            more = self._more.get(at, 0)
            text = f"{each.text} The same holds for {more} more." if more else each.text
            yield Problem(places.of(paths[each.path], key=each.key), text)

    def _as_written(self, path: Path) -> Path:
        """A path with the names of keys that the file uses."""
        return tuple(self.renamed.get(path[: index + 1], part) for index, part in enumerate(path))


def as_lines(name: str, problems: Collection[Problem]) -> str:
    """Problems as lines that editors can follow: `file:line:column: text`."""
    shown = list(problems)[:MAX_SHOWN]
    lines = [f"{name}:{each.at.line}:{each.at.column}: {on_one_line(each.text)}" for each in shown]
    if len(problems) > MAX_SHOWN:
        lines.append(f"{name}: and {len(problems) - MAX_SHOWN} more.")
    return "\n".join(lines)


def on_one_line(text: str) -> str:
    """A message in which what a file holds breaks no line and moves no cursor, and fills no screen."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} ... {text[-_MAX_TEXT // 2 :]}"


def first(marks: list[Mark], index: int) -> Mark:
    """The place of an entry, or the file's start if it is not known."""
    return marks[index] if index < len(marks) else Mark(1, 1)
