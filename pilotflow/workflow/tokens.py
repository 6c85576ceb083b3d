"""`${files.input.NAME}` and its relatives in commands: which there are, and what they become.

A value that is put into a command keeps its meaning wherever it stands: it is quoted for the shell outside
quotes, and escaped inside them. So `--config '${user_data.input.config}'` and `--config ${user_data.input.config}`
both give the program the same JSON text, whatever is in it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from pilotflow.workflow.shell_text import ShellPlace

_TOKEN: Final = re.compile(r"\$\{(files|user_data)\.(input|output)\.([^}]+)\}")
_LIKE: Final = re.compile(r"\$\{(?:files?|user_?data)\.[^}]*\}")
_PLAIN: Final = re.compile(r"[\w@%+=:,./~${}*?-]+")
"""A path that goes in as it is: the shell may expand `~`, variables and patterns in it."""


class Token(NamedTuple):
    """What a command refers to: `kind` is files or user_data, `direction` input or output."""

    kind: str
    direction: str
    name: str


def tokens_in(text: str) -> list[Token]:
    """All that a text refers to, in order."""
    return [Token(*match.groups()) for match in _TOKEN.finditer(text)] if "${" in text else []


def misspelt_in(text: str) -> list[str]:
    """What looks like such a token and is none."""
    return [match[0] for match in _LIKE.finditer(text) if not _TOKEN.fullmatch(match[0])] if "${" in text else []


def with_files(text: str, path_of: Callable[[str], str]) -> str:
    """A command with the paths of its files in place."""

    def put(token: Token, place: ShellPlace) -> str | None:
        if token.kind != "files":
            return None
        path = path_of(token.name)
        return path if _PLAIN.fullmatch(path) else place.written(path)

    return _replaced(text, put)


def with_user_data(text: str, values: Mapping[str, Any]) -> str:
    """A command with its user data in place: inputs as JSON text, outputs by name.

    Args:
        text: the command, as in `Job.command`.
        values: the values of the job's inputs, by name.
    """

    def put(token: Token, place: ShellPlace) -> str | None:
        if token.kind != "user_data":
            return None
        if token.direction == "output":
            return token.name if _PLAIN.fullmatch(token.name) else place.written(token.name)
        value = _json(values[token.name])
        if value.startswith('"') and not place.quote and not place.heredoc:
            return shlex.quote(value[1:-1])  # what a shell makes of a string's JSON text
        return place.written(value)

    return _replaced(text, put)


def in_arguments(value: Any, values: Mapping[str, Any]) -> Any:
    """An argument of a function with user data in place: the value itself where a text is only that."""
    if isinstance(value, str):
        match = _TOKEN.fullmatch(value)
        if match is not None and match[1] == "user_data" and match[2] == "input":
            return values[match[3]]
        return _TOKEN.sub(lambda each: _argument(each, values), value)
    if isinstance(value, (list, tuple)):
        return [in_arguments(item, values) for item in value]
    if isinstance(value, dict):
        return {key: in_arguments(item, values) for key, item in value.items()}
    return value


def _argument(match: re.Match[str], values: Mapping[str, Any]) -> str:
    if match[1] != "user_data":
        return match[0]
    return _json(values[match[3]]) if match[2] == "input" else match[3]


def _replaced(text: str, put: Callable[[Token, ShellPlace], str | None]) -> str:
    """The text with each token replaced; `put` is told where it stands, and None leaves it."""
    if "${" not in text:
        return text
    pieces, at, place = list[str](), 0, ShellPlace()
    for match in _TOKEN.finditer(text):
        place.feed(text[at : match.start()])
        new = put(Token(*match.groups()), place)
        pieces += [text[at : match.start()], match[0] if new is None else new]
        at = match.end()
    return "".join([*pieces, text[at:]])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
