"""`read_site`: a `Site` from a YAML file and what it includes, or everything that is wrong, by line and column.

A site file's keys are the fields of `Site`, and `include`: a file, or a list of files, beside it. What it
says itself goes before what included files say; `worker_init`, `defaults`, `policy` and `resources` are joined
key by key. Nothing in it is executed here, and no variables are expanded but in `paths`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pilotflow.config import yaml_tree
from pilotflow.config.reader import Bad, RecordReader, kind_in_file, raise_problems, read_document
from pilotflow.config.settings import Settings
from pilotflow.config.site import Policy, Site
from pilotflow.errors import ConfigError
from pilotflow.units import did_you_mean, show

_JOINED: Final = ("worker_init", "defaults", "policy", "resources")
_MAX_DEPTH: Final = 8


@dataclass(frozen=True)
class SiteFile:
    """A site, and where its file says what.

    Attributes:
        site: what the files say.
        path: the file itself.
        places: `FILE:LINE` of each key, by its dotted path such as `policy.max_blocks`.
    """

    site: Site
    path: Path
    places: Mapping[str, str] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """Where a key is said: `FILE:LINE`, or the file if it is not said."""
        return self.places.get(key, str(self.path))


def read_site(path: str | os.PathLike[str], trusted: bool = False) -> SiteFile:
    """The site in a file.

    Args:
        path: the file, YAML or JSON, UTF-8.
        trusted: whether it must be one that only its owner or root can change, as admins' files must.

    Raises:
        ConfigError: it cannot be read, others may write it though it must be trusted, or anything in it is
            wrong; all at once, one line each, as `file:line:column: where: what is wrong and what is allowed`.
    """
    parts = _Parts(trusted)
    document = parts.read(Path(path), ())
    reader = _SiteReader(document, parts)
    site = reader.site()
    for name, problems in reader.by_file.items():
        if problems:
            raise_problems(name, problems)
    assert site is not None
    places = {_dotted(at): f"{parts.file_of(at)}:{mark.line}" for at, mark in document.keys_at.items()}
    return SiteFile(site, Path(path), places)


def check_trusted(path: Path) -> None:
    """See that nobody but its owner, who must be root or the caller, can change a file.

    Raises:
        ConfigError: somebody could, with the command that mends it; or the file cannot be looked at.
    """
    try:
        for place in dict.fromkeys((path, path.parent, path.resolve().parent)):  # it may be a link
            info = place.stat()
            if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (place != path and info.st_mode & stat.S_ISVTX):
                who = "everybody" if info.st_mode & stat.S_IWOTH else "its group"
                raise ConfigError(
                    f"{path}: {who} may write {'it' if place == path else place}, so whoever that is could run "
                    f"programs as you. Refused; its admin should say: chmod go-w {place}"
                )
            if info.st_uid not in (0, os.geteuid()):
                raise ConfigError(
                    f"{path}: {'it' if place == path else place} belongs to user {info.st_uid}, neither to root nor to "
                    f"you. Refused; its admin should say: chown root {place}"
                )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None


class _Parts:
    """A site file and what it includes, read into one document that remembers who said what."""

    def __init__(self, trusted: bool) -> None:
        self._trusted = trusted
        self._files: dict[yaml_tree.Path, str] = {}
        self.found: dict[str, list[yaml_tree.Problem]] = {}

    def file_of(self, path: yaml_tree.Path) -> str:
        """The file that said what is at this path."""
        while path and path not in self._files:
            path = path[:-1]
        return self._files[path]

    def read(self, path: Path, above: tuple[Path, ...]) -> yaml_tree.Document:
        """The document in a file, with what it includes."""
        if self._trusted:
            check_trusted(path)
        name = str(path)
        document = read_document(name)
        problems = self.found.setdefault(name, [])
        problems += document.problems
        self._files.setdefault((), name)
        if not isinstance(document.value, dict):
            return document
        names = document.value.pop("include", [])
        own = dict.fromkeys(_claims(document.value), name)
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
            mark = document.values_at[("include",)]
            problems.append(yaml_tree.Problem(mark, f"include: {show(names)} is no file name and no list of such."))
            names = []
        for item in names:
            self._include(document, path, item, above, problems)
        self._files.update(own)
        return document

    def _include(
        self,
        document: yaml_tree.Document,
        path: Path,
        item: str,
        above: tuple[Path, ...],
        problems: list[yaml_tree.Problem],
    ) -> None:
        mark = document.values_at.get(("include",), yaml_tree.Mark(1, 1))
        target = path.parent / item
        if target in (path, *above) or len(above) >= _MAX_DEPTH:
            problems.append(yaml_tree.Problem(mark, f"include: {item} includes this file, or too many others."))
            return
        try:
            base = self.read(target, (path, *above))
        except ConfigError as error:
            problems.append(yaml_tree.Problem(mark, f"include: {error}"))
            return
        if isinstance(base.value, dict):
            _join(document, base)


def _claims(value: Mapping[str, Any]) -> list[yaml_tree.Path]:
    """The paths that a file says itself: its keys, and those within what is joined key by key."""
    out: list[yaml_tree.Path] = []
    for key, item in value.items():
        inner = item if key in _JOINED and isinstance(item, dict) else None
        out += [(key,)] if inner is None else [(key,), *((key, name) for name in inner)]
    return out


def _join(document: yaml_tree.Document, base: yaml_tree.Document) -> None:
    """Add to a document what it does not say itself and a base does."""
    taken: set[yaml_tree.Path] = set()
    for key, item in base.value.items():
        own = document.value.get(key)
        if key not in document.value:
            document.value[key] = item
            taken.add((key,))
        elif key in _JOINED and isinstance(own, dict) and isinstance(item, dict):
            for name in item.keys() - own.keys():
                own[name] = item[name]
                taken.add((key, name))
    for here, there in ((document.values_at, base.values_at), (document.keys_at, base.keys_at)):
        here.update({path: mark for path, mark in there.items() if path[:1] in taken or path[:2] in taken})


class _SiteReader(RecordReader):
    """Makes a `Site`; problems are kept by file."""

    def __init__(self, document: yaml_tree.Document, parts: _Parts) -> None:
        super().__init__(document)
        self._parts = parts
        self.by_file = parts.found

    def note(self, path: yaml_tree.Path, text: str, at_key: bool = False) -> None:
        """Note what is wrong, with the file that said it."""
        before = len(self.problems)
        super().note(path, text, at_key)
        self.by_file[self._parts.file_of(path)] += self.problems[before:]

    def site(self) -> Site | None:
        """The site, or None if the document has none."""
        value = self.document.value
        if value is None:
            self.note((), "the file is empty. Write at least `name:` and `partitions:`.")
            return None
        if value is yaml_tree.BROKEN:
            return None
        try:
            site = self.record(Site, value, (), {"defaults": self._defaults, "launcher": self.launcher})
        except Bad:
            return None
        self._check_fixed(site.policy)
        return site

    def _defaults(self, value: object, path: yaml_tree.Path) -> dict[str, Any]:
        """Settings; checked as a record, kept as what was said."""
        if value is yaml_tree.BROKEN:
            raise Bad
        if not isinstance(value, dict):
            self.note(path, f"{show(value)} is {kind_in_file(value)}, expected settings and values.")
            raise Bad
        settings = self.record(Settings, value, path, {})  # whose launcher is a name
        return {key: getattr(settings, key) for key in value}

    def _check_fixed(self, policy: Policy) -> None:
        names = list(Settings.__dataclass_fields__)
        for index, name in enumerate(policy.fixed):
            if name not in names:
                text = f"there is no setting {show(name)}{did_you_mean(name, names)}. Valid: {', '.join(names)}."
                self.note(("policy", "fixed", index), text)


def _dotted(path: yaml_tree.Path) -> str:
    return ".".join(map(str, path))
