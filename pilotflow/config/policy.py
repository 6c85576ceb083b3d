"""Whether what users want stays within what their site's admins allow.

A guard rail, not a wall: whoever can submit a batch job can do so without pilotflow, so what must hold
is enforced by the batch system. What is here saves users and admins from accidents, with words that say
who has set which limit, and where.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilotflow.config.settings import Setting
from pilotflow.config.site import Policy, Site
from pilotflow.config.snippets import lines_of_site, options_in, sets
from pilotflow.errors import PolicyExceeded
from pilotflow.units import counted, format_duration


@dataclass(frozen=True)
class LocatedPolicy:
    """A policy, of which site, and where its limits were set.

    Attributes:
        policy: the limits.
        site: name of the site.
        places: `FILE:LINE` of each limit, by its name.
        defaults: the site's own settings and what its network has of such, which `fixed` ones must keep.
        described: the site that the policy is about.
    """

    policy: Policy
    site: str
    places: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    described: Site | None = None


@dataclass(frozen=True)
class Use:
    """What an executor may come to use.

    Attributes:
        executor: its label.
        partition, account, qos: what it asks the batch system for, None for the batch system's default.
        blocks: the most blocks at a time.
        nodes: nodes of each.
        walltime_s: how long a block may live, None for as long as the batch system lets it.
        origins: who says so where no setting does: places by the setting's name, and that of all others by "".
        further: lines that it adds to the heads of batch scripts, where they go before all others.
    """

    executor: str
    partition: str | None
    account: str | None
    qos: str | None
    blocks: int
    nodes: int
    walltime_s: float | None
    origins: Mapping[str, str] = field(default_factory=dict)
    further: Sequence[str] = ()

    def origin(self, key: str) -> str:
        """Who says this, if no setting does; empty if that is not known."""
        return self.origins.get(key, self.origins.get("", ""))


def check_uses(policies: Sequence[LocatedPolicy], uses: Sequence[Use], settings: Mapping[str, Setting]) -> None:
    """See that what a run may come to use is allowed.

    Args:
        policies: all of them must allow it.
        uses: what the run's executors may use.
        settings: what was said, for where values come from.

    Raises:
        PolicyExceeded: everything that is not allowed: setting, value, its place, the limit and its place.
    """
    problems: list[str] = []
    for located in policies:
        problems += _too_many(located, uses, settings)
        for use in uses:
            problems += _too_long(located, use, settings)
            problems += _not_listed(located, use, settings)
            problems += _beside(located, use, settings)
    refuse(problems)


def refusals(policies: Sequence[LocatedPolicy], partition: str) -> list[str]:
    """Which policies do not allow a partition: what they allow, and where they say so; empty if all allow it."""
    return [
        f"site '{located.site}' allows partitions: {', '.join(allowed) or 'none'}{at(located, 'partitions')}."
        for located in policies
        if (allowed := located.policy.partitions) is not None and not _is_listed(partition, allowed)
    ]


def _is_listed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _too_many(located: LocatedPolicy, uses: Sequence[Use], settings: Mapping[str, Setting]) -> list[str]:
    out: list[str] = []
    policy = located.policy
    blocks = sum(use.blocks for use in uses)
    of_each = [f"{use.blocks} of '{use.executor}'" for use in uses if use.blocks]
    all_of_them = counted(blocks, "block") + (f" ({' + '.join(of_each)})" if len(of_each) > 1 else "")
    for key, limit in (("max_blocks", policy.max_blocks), ("max_queued_jobs", policy.max_queued_jobs)):
        if limit is not None and blocks > limit:
            out.append(_problem(located, key, all_of_them, _from(settings, "max_blocks", uses), limit))
    nodes = sum(use.blocks * use.nodes for use in uses)
    if policy.max_nodes is not None and nodes > policy.max_nodes:
        each = " + ".join(f"{counted(use.blocks, 'block')} of {use.nodes}" for use in uses)
        what = f"{counted(nodes, 'node')} ({each})"
        where = _from(settings, "nodes_per_block") or _from(settings, "max_blocks", uses)
        out.append(_problem(located, "max_nodes", what, where, policy.max_nodes))
    return out


def _too_long(located: LocatedPolicy, use: Use, settings: Mapping[str, Setting]) -> list[str]:
    limit = located.policy.max_walltime
    if limit is None or (use.walltime_s is not None and use.walltime_s <= float(limit)):
        return []
    wanted = "no walltime" if use.walltime_s is None else f"a walltime of {format_duration(use.walltime_s)}"
    return [
        _problem(located, "max_walltime", wanted, _from(settings, "walltime", [use]), format_duration(float(limit)))
    ]


def _not_listed(located: LocatedPolicy, use: Use, settings: Mapping[str, Setting]) -> list[str]:
    policy, out = located.policy, list[str]()
    for key, name, allowed in (
        ("partition", "partitions", policy.partitions),
        ("account", "accounts", policy.accounts),
        ("qos", "qos", policy.qos),
    ):
        value: str | None = getattr(use, key)
        if allowed is None or (key == "qos" and value is None):  # the batch system's own choice
            continue
        if value is None or not _is_listed(value, allowed):
            wanted = f"no {key}" if value is None else f"{key} '{value}'"
            out.append(_problem(located, name, wanted, _from(settings, key, [use]), ", ".join(allowed) or "none"))
    return out


_BESIDE: Final = {
    "partition": ("partition", ("partitions",)),
    "account": ("account", ("accounts",)),
    "qos": ("qos", ("qos",)),
    "reservation": ("reservation", ()),
    "constraint": ("constraint", ()),
    "time": ("walltime", ("max_walltime",)),
    "nodes": ("nodes_per_block", ("max_nodes",)),
    "cpus-per-task": ("cores_per_node", ()),
    "mem": ("mem_per_node", ()),
    "array": ("max_blocks", ("max_blocks", "max_queued_jobs", "max_nodes")),
}
"""By the batch system's option, which would go before what was looked at: the setting to use instead, and the limits."""


def _beside(located: LocatedPolicy, use: Use, settings: Mapping[str, Setting]) -> list[str]:
    """Further options about what is limited or fixed; those that the site itself gives are not looked at."""
    own = frozenset[str]() if located.described is None else lines_of_site(located.described, located.defaults)
    where = _from(settings, "scheduler_options", [use])
    out: list[str] = []
    for word in (word for line in use.further if line not in own for word in options_in(line)):
        for option, (setting, limits) in _BESIDE.items():
            limit = next((name for name in limits if _limit(located, name) is not None), None)
            if not sets(word, option) or (limit is None and setting not in located.policy.fixed):
                continue
            if limit is None:
                out.append(
                    f"the option {word} ({where}): {setting} cannot be set, by the policy 'fixed' of site "
                    f"'{located.site}'{at(located, 'fixed')}."
                )
            else:
                problem = _problem(located, limit, f"the option {word}", where, _limit(located, limit))
                out.append(f"{problem} Say {setting} instead.")
            break
    return out


def _limit(located: LocatedPolicy, name: str) -> object:
    value = getattr(located.policy, name)
    if value is None:
        return None
    if name == "max_walltime":
        return format_duration(float(value))
    return value if isinstance(value, int) else ", ".join(value) or "none"


def _problem(located: LocatedPolicy, limit: str, wanted: str, where: str, allowed: object) -> str:
    said = f" ({where})" if where else ""
    return f"{wanted}{said}: site '{located.site}' allows {limit}: {allowed}{at(located, limit)}."


def _from(settings: Mapping[str, Setting], key: str, uses: Sequence[Use] = ()) -> str:
    if key in settings:
        return settings[key].origin
    return ", ".join(dict.fromkeys(use.origin(key) for use in uses if use.origin(key)))


def at(located: LocatedPolicy, key: str) -> str:
    """Where a limit was set, in brackets; empty if nobody knows."""
    place = located.places.get(key)
    return f" ({place})" if place else ""


def refuse(problems: Sequence[str]) -> None:
    """Raise `PolicyExceeded` with all of these, if there are any."""
    if problems:
        raise PolicyExceeded("\n".join(dict.fromkeys(problems)))
