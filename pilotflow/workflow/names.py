"""Names of one kind, such as all jobs: what a name or a regular expression stands for, and what is wrong with it."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from typing import Final

from pilotflow.units import show
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.reading import Path

_LITERAL: Final = re.compile(r"[\w\-/ ]*")
_EXACT: Final = re.compile(r"\^(?P<name>[\w\-/ ]*)\$")


_CLASSES: Final = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "space": r"\s", "word": r"\w",
    "xdigit": "0-9a-fA-F", "punct": r"!-/:-@\[-`{-~", "blank": r" \t",
}  # fmt: skip
"""Classes such as `[[:alpha:]]`, which Python's expressions do not have."""
_FOREIGN: Final = re.compile(r"\\(?P<end>z)|\\.|\(\?<(?P<name>[A-Za-z_]\w*)>|\[:(?P<class>[a-z]+):\]", re.DOTALL)


def _compiled(pattern: str) -> re.Pattern[str]:
    r"""A regular expression; what others write differently is understood: `\z`, `(?<name>...)`, `[[:alpha:]]`.

    Raises:
        re.error: it is none.
        FutureWarning: it may mean something else in a later Python.
    """

    def native(match: re.Match[str]) -> str:
        if match["end"]:
            return r"\Z"
        if match["name"]:
            return f"(?P<{match['name']}>"
        return _CLASSES.get(match["class"], match[0]) if match["class"] else match[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        return re.compile(_FOREIGN.sub(native, pattern))


class Names:
    """The entries of one kind, by name, after parameters have been expanded.

    Args:
        kind: what one is called in messages, such as "job".
        findings: where errors go.
        key: the key that gives the name.

    Attributes:
        incomplete: whether some are missing, because their entries are wrong; what is not found then is no error.
    """

    def __init__(self, kind: str, findings: Findings, key: str = "name") -> None:
        self.kind = kind
        self.incomplete = False
        self._key = key
        self.index_of: dict[str, int] = {}
        self._findings = findings
        self._entry_of: list[Path] = []
        self._found: dict[str, tuple[int, ...] | None] = {}
        self._sorted: list[str] | None = None

    def __len__(self) -> int:
        return len(self._entry_of)

    def add(self, name: str, path: Path, hint: str = "") -> None:
        """Give the next entry its name; an error if there is one of that name.

        Args:
            name: the name.
            path: the entry in the file.
            hint: what may be wrong if it is taken by a copy of the same entry.
        """
        first = self.index_of.setdefault(name, len(self._entry_of))
        self._entry_of.append(path)
        if not name.isprintable() or not name.strip():
            text = f"{show(name)} cannot be the name of a {self.kind}: it is empty, or holds line breaks or control characters."
            self._findings.error((*path, self._key), text, about="unprintable")
        if first == len(self._entry_of) - 1:
            return
        if self._entry_of[first] == path:
            text = f"several {self.kind}s of this entry are called '{name}'{hint}."
            self._findings.error((*path, self._key), text, about="copies")
        else:
            text = f"there is another {self.kind} called '{name}', entry {int(self._entry_of[first][1]) + 1}; names must be unique."
            self._findings.error((*path, self._key), text, about="twice")

    def find(self, name: str, path: Path) -> int | None:
        """The entry with a name; an error if there is none."""
        index = self.index_of.get(name)
        if index is None and not self.incomplete:
            near = self._findings.suggest(name, self.index_of)
            self._findings.error(path, f"there is no {self.kind} called '{name}'{near}", about="unknown")
        return index

    def matching(self, pattern: str, path: Path) -> tuple[int, ...]:
        """The entries whose names a regular expression matches anywhere; an error if there are none."""
        if pattern not in self._found:
            self._found[pattern] = self._search(pattern, path)
        found = self._found[pattern]
        if found == () and not self.incomplete:
            shown = pattern if len(pattern) <= 80 else f"{pattern[:77]}..."
            near = self._findings.suggest(pattern.strip("^$.*+"), self.index_of)
            self._findings.error(path, f"'{shown}' matches no {self.kind}{near}", about="no match")
        return found or ()

    def _search(self, pattern: str, path: Path) -> tuple[int, ...] | None:
        exact = _EXACT.fullmatch(pattern)
        if exact is not None:
            index = self.index_of.get(exact["name"])
            return () if index is None else (index,)
        try:
            search = _compiled(pattern).search
        except (re.error, OverflowError, RecursionError, FutureWarning) as error:
            self._findings.error(path, f"'{pattern}' is not a regular expression: {error}.", about="regex")
            return None
        return tuple(sorted(self.index_of[name] for name in self._candidates(pattern) if search(name)))

    def _candidates(self, pattern: str) -> list[str]:
        """The names that may match: those with the text that the pattern says they begin with."""
        if self._sorted is None:
            self._sorted = sorted(self.index_of)
        if not pattern.startswith("^") or "|" in pattern or pattern.startswith("^^"):
            return self._sorted
        match = _LITERAL.match(pattern, 1)
        prefix = match[0] if match is not None else ""
        if len(prefix) + 1 < len(pattern) and pattern[len(prefix) + 1] in "*?{":
            prefix = prefix[:-1]
        first = bisect_left(self._sorted, prefix)
        last = bisect_left(self._sorted, prefix + "\U0010ffff")
        return self._sorted[first:last]
