"""Putting a value into shell text so that it keeps its meaning: which quotes it stands in, and how to write it there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Final

_HEREDOC: Final = re.compile(
    r"<<(-?)[ \t]*(?:'(?P<single>[^'\n]+)'|\"(?P<double>[^\"\n]+)\"|\\?(?P<bare>[A-Za-z0-9_.+-]+))"
)
_BEFORE_COMMENT: Final = " \t\n;&|("


@dataclass
class ShellPlace:
    """A place in a shell's text that moves on as text is fed.

    Attributes:
        quote: the quote that is open: ', ", or none.
        heredoc: the word that ends the here-document it is in, or none.
        literal: whether that here-document is taken as it is (its word was quoted).
    """

    quote: str = ""
    heredoc: str = ""
    literal: bool = False
    _coming: list[tuple[str, bool]] = field(default_factory=list)
    _line: str = ""
    _comment: bool = False
    _last: str = "\n"

    def feed(self, text: str) -> None:
        """Go on behind this text."""
        at = 0
        while at < len(text):
            character = text[at]
            at += 1
            if self.heredoc:
                self._in_heredoc(character)
            elif self._comment:
                self._comment = character != "\n"
                self._newline(character)
            elif self.quote:
                if character == "\\" and self.quote == '"':
                    at += 1
                elif character == self.quote:
                    self.quote = ""
            elif character == "\\":
                at += 1
            elif character in "'\"":
                self.quote = character
            elif character == "#" and self._last in _BEFORE_COMMENT:
                self._comment = True
            elif character == "<" and text.startswith("<<", at - 1) and not text.startswith("<<<", at - 1):
                at = self._announce(text, at)
            elif text.startswith("<<<", at - 1):
                at += 2
            else:
                self._newline(character)
            self._last = character

    def _announce(self, text: str, at: int) -> int:
        match = _HEREDOC.match(text, at - 1)
        if match is None:
            return at
        word = match["single"] or match["double"] or match["bare"]
        self._coming.append((word, match["bare"] is None or "\\" in match[0]))
        return match.end()

    def _newline(self, character: str) -> None:
        if character == "\n" and self._coming:
            self.heredoc, self.literal = self._coming.pop(0)
            self._line = ""

    def _in_heredoc(self, character: str) -> None:
        if character != "\n":
            self._line += character
            return
        if self._line.strip("\t") == self.heredoc:
            self.heredoc, self.literal = self._coming.pop(0) if self._coming else ("", False)
        self._line = ""

    def written(self, text: str) -> str:
        """A text as it must be written here, so that the program gets exactly it."""
        if self.heredoc:
            return text if self.literal else re.sub(r"([\\$`])", r"\\\1", text)
        if self.quote == "'":
            return text.replace("'", "'\\''")
        if self.quote == '"':
            return re.sub(r'([\\"$`])', r"\\\1", text)
        return shlex.quote(text)
