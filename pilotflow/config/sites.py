"""Which sites are known here, and on which one a program is.

Site files come from three places. What the machine's admins keep (`/etc/pilotflow/site.yaml`) goes before
everything; files in `PILOTFLOW_SITE_PATH` add sites, or tighten the policy of one; those that ship with
pilotflow are there for whom nobody keeps a file.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from pilotflow.config.places import ADMIN_FILE, PATH_VARIABLE, Places, may_exist
from pilotflow.config.policy import LocatedPolicy
from pilotflow.config.site import Detection, Site
from pilotflow.config.site_file import SiteFile, read_site
from pilotflow.errors import ConfigError
from pilotflow.units import did_you_mean, nearest

_DETECT: Final = re.compile(r"^detect:.*\n(?:[ #].*\n|\n)*", re.MULTILINE)
_ONLY_TIGHTENS: Final = frozenset(["name", "policy", "description", "message"])


@dataclass(frozen=True)
class Catalog:
    """The sites that are known.

    Attributes:
        files: the file that describes each site, by name.
        kind: "admin", "added" or "shipped", by name.
        tightened: files that tighten a site's policy, by its name.
        admin: the machine's own site, or None.
    """

    files: Mapping[str, SiteFile] = field(default_factory=dict)
    kind: Mapping[str, str] = field(default_factory=dict)
    tightened: Mapping[str, tuple[SiteFile, ...]] = field(default_factory=dict)
    admin: SiteFile | None = None

    def site(self, name: str) -> SiteFile:
        """The file of the site of this name.

        Raises:
            ConfigError: there is none; names those that there are.
        """
        found = self.files.get(name)
        if found is None:
            names = sorted(self.files)
            listed = f"Known here: {', '.join(names)}. " if names else ""
            raise ConfigError(
                f"there is no site '{name}'{did_you_mean(name, names)}. {listed}`pilotflow site list` shows all. "
                f"Add one with a file in {PATH_VARIABLE}, or ask your admins for {ADMIN_FILE}."
            )
        return found

    def policies(self, name: str | None) -> list[LocatedPolicy]:
        """All policies that hold for a run at this site: its own, and always the machine's."""
        files: list[SiteFile] = []
        if self.admin is not None:
            files += [self.admin, *self.tightened.get(self.admin.site.name, ())]
        if name is not None and (self.admin is None or name != self.admin.site.name):
            files += [self.site(name), *self.tightened.get(name, ())]
        return [_located(file, self.files.get(file.site.name, file)) for file in files]


def _located(file: SiteFile, described: SiteFile) -> LocatedPolicy:
    """A file's policy; what is fixed is so as the file says that describes the site."""
    site = described.site
    names = [field.name for field in dataclasses.fields(file.site.policy)]
    places = {name: file.places[f"policy.{name}"] for name in names if f"policy.{name}" in file.places}
    network = {"ports": site.network.ports, "address": site.network.address}
    said = {key: value for key, value in network.items() if value is not None}
    return LocatedPolicy(file.site.policy, site.name, places, {**said, **site.defaults}, site)


def read_catalog(places: Places, shipped: Callable[[Path], bool] = lambda _: True) -> Catalog:
    """Read all site files.

    Args:
        places: where they are.
        shipped: which of those that come with pilotflow to read.

    Raises:
        ConfigError: one is wrong, others may write the machine's own, two files describe one site, or a file
            in `PILOTFLOW_SITE_PATH` says more about a site of the machine than a tighter policy.
    """
    files: dict[str, SiteFile] = {}
    kind: dict[str, str] = {}
    tightened: dict[str, tuple[SiteFile, ...]] = {}
    for folder in places.shipped:
        for path in filter(shipped, _yaml_files(folder)):
            file = read_site(path)
            files[file.site.name], kind[file.site.name] = file, "shipped"
    admin = read_site(places.admin, trusted=True) if may_exist(places.admin) else None
    if admin is not None:
        files[admin.site.name], kind[admin.site.name] = admin, "admin"
    for path in [path for place in places.added for path in _yaml_files(place)]:
        file = read_site(path)
        name = file.site.name
        if kind.get(name, "shipped") == "shipped":
            files[name], kind[name] = file, "added"
        else:
            _check_only_tightens(file, files[name])
            tightened[name] = (*tightened.get(name, ()), file)
    return Catalog(files, kind, tightened, admin)


def _yaml_files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    return sorted(path for path in place.iterdir() if path.suffix in (".yaml", ".yml"))


def _check_only_tightens(file: SiteFile, first: SiteFile) -> None:
    said = {key.partition(".")[0] for key in file.places}
    more = sorted(said - _ONLY_TIGHTENS)
    if more:
        raise ConfigError(
            f"{file.place(more[0])}: {', '.join(more)}: site '{file.site.name}' is described by {first.path}. Another "
            "file can only tighten it: give `name` and `policy`, or choose another name."
        )


@dataclass(frozen=True)
class Detected:
    """A site that a program seems to run at.

    Attributes:
        file: its file.
        reason: what says so.
    """

    file: SiteFile
    reason: str


def detect(catalog: Catalog, environment: Mapping[str, str], hosts: Sequence[str] | None = None) -> list[Detected]:
    """The sites that this program seems to run at, the machine's own first.

    Args:
        catalog: the sites.
        environment: variables to look at.
        hosts: names of this host; asked for if not given.
    """
    names = _host_names() if hosts is None else list(hosts)
    out: list[Detected] = []
    if catalog.admin is not None:
        out.append(Detected(catalog.admin, f"{catalog.admin.path} exists"))
    for name in sorted(catalog.files):
        file = catalog.files[name]
        reason = file.site.detect.reason(environment, names, os.path.exists)
        if reason is not None and file is not catalog.admin:
            out.append(Detected(file, reason))
    return out


def needed(name: str | None, environment: Mapping[str, str]) -> Callable[[Path], bool]:
    """Which files that ship have to be read: that of this name, or those of sites that this one may be.

    Reading all of them takes a tenth of a second. Their names are those of their sites.
    """
    hosts = _host_names() if name is None else []

    def is_needed(path: Path) -> bool:
        if name is not None:
            return path.stem == name or nearest(name, [path.stem]) is not None
        block = _DETECT.search(path.read_text(encoding="utf-8"))
        if block is None:
            return False
        loaded = yaml.load(block[0], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe
        return Detection(**loaded["detect"]).reason(environment, hosts, os.path.exists) is not None

    return is_needed


def _host_names() -> list[str]:
    name = socket.gethostname()
    return list(dict.fromkeys([name, name.partition(".")[0], socket.getfqdn(name)])) if "." not in name else [name]


def site_of(catalog: Catalog, name: str | None, environment: Mapping[str, str]) -> Site | None:
    """The site of this name, or the one that this program is on; None if nothing tells.

    Raises:
        ConfigError: there is no such site, or several seem to be this one.
    """
    found = settled(catalog, name, environment)
    return None if found is None else found.file.site


def settled(catalog: Catalog, name: str | None, environment: Mapping[str, str]) -> Detected | None:
    """As `site_of`, with the site's file and what tells that it is this one; that is empty if it was named.

    Raises:
        ConfigError: there is no site of that name, or this seems to be more than one.
    """
    if name is not None:
        return Detected(catalog.site(name), "")
    found = detect(catalog, environment)
    if len(found) > 1 and found[0].file is not catalog.admin:
        seen = "; ".join(f"{hit.file.site.name} ({hit.reason})" for hit in found)
        raise ConfigError(f"this seems to be more than one site: {seen}. Say which with site=... or PILOTFLOW_SITE.")
    return found[0] if found else None
