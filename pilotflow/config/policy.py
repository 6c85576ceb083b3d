"""Whether what users want stays within what their site's admins allow.

A guard rail, not a wall: whoever can submit a batch job can do so without pilotflow, so what must hold
is enforced by the batch system. What is here saves users and admins from accidents, with words that say
who has set which limit, and where.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilotflow.config.settings import Layer, Setting
from pilotflow.config.site import Policy
from pilotflow.errors import PolicyExceeded
from pilotflow.units import format_duration, show


@dataclass(frozen=True)
class LocatedPolicy:
    """A policy, of which site, and where its limits were set.

    Attributes:
        policy: the limits.
        site: name of the site.
        places: `FILE:LINE` of each limit, by its name.
        defaults: the site's own settings and what its network has of such, which `fixed` ones must keep.
    """

    policy: Policy
    site: str
    places: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)


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
    """

    executor: str
    partition: str | None
    account: str | None
    qos: str | None
    blocks: int
    nodes: int
    walltime_s: float | None
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Who says this, if no setting does; empty if that is not known."""
        return self.origins.get(key, self.origins.get("", ""))


def check_fixed(policies: Sequence[LocatedPolicy], layers: Sequence[Layer]) -> None:
    """See that no layer of users' own changes what admins have fixed.

    Raises:
        PolicyExceeded: naming each such setting, its value and place, and the policy's.
    """
    _refuse(
        [
            _fixed(located, key, layer.values[key], layer.origins.get(key, layer.name))
            for located in policies
            for key in located.policy.fixed
            for layer in layers
            if layer.name != "site" and layer.values.get(key) not in (None, located.defaults.get(key))
        ]
    )


@dataclass(frozen=True)
class Held:
    """What a configuration of a user's own has as a setting.

    Attributes:
        key: the setting.
        value: what it is.
        default: what it is where nobody says anything.
        where: who says so.
    """

    key: str
    value: object
    default: object
    where: str


def check_fixed_in(policies: Sequence[LocatedPolicy], held: Sequence[Held]) -> None:
    """See that a configuration of a user's own has what admins have fixed, or its default where they say no value.

    Raises:
        PolicyExceeded: naming each such setting, its value and place, and the policy's.
    """
    problems = [
        _fixed(located, one.key, one.value, one.where)
        for located in policies
        for one in held
        if one.key in located.policy.fixed
        and one.value != located.defaults.get(one.key)
        and (located.defaults.get(one.key) is not None or one.value != one.default)
    ]
    _refuse(problems)


def _fixed(located: LocatedPolicy, key: str, value: object, where: str) -> str:
    wanted = located.defaults.get(key)
    held = "left as it is" if wanted is None else show(wanted)
    return (
        f"{key}={show(value)} ({where}) cannot be set: it is {held} by the policy 'fixed' of site "
        f"'{located.site}'{_at(located, 'fixed')}."
    )


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
    _refuse(problems)


def refusals(policies: Sequence[LocatedPolicy], partition: str) -> list[str]:
    """Which policies do not allow a partition: what they allow, and where they say so; empty if all allow it."""
    return [
        f"site '{located.site}' allows partitions: {', '.join(allowed) or 'none'}{_at(located, 'partitions')}."
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
    all_of_them = f"{blocks} blocks" + (f" ({' + '.join(of_each)})" if len(of_each) > 1 else "")
    for key, limit in (("max_blocks", policy.max_blocks), ("max_queued_jobs", policy.max_queued_jobs)):
        if limit is not None and blocks > limit:
            out.append(_problem(located, key, all_of_them, _from(settings, "max_blocks", uses), limit))
    nodes = sum(use.blocks * use.nodes for use in uses)
    if policy.max_nodes is not None and nodes > policy.max_nodes:
        what = f"{nodes} nodes ({' + '.join(f'{use.blocks} blocks of {use.nodes}' for use in uses)})"
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


def _problem(located: LocatedPolicy, limit: str, wanted: str, where: str, allowed: object) -> str:
    said = f" ({where})" if where else ""
    return f"{wanted}{said}: site '{located.site}' allows {limit}: {allowed}{_at(located, limit)}."


def _from(settings: Mapping[str, Setting], key: str, uses: Sequence[Use] = ()) -> str:
    if key in settings:
        return settings[key].origin
    return ", ".join(dict.fromkeys(use.origin(key) for use in uses if use.origin(key)))


def _at(located: LocatedPolicy, key: str) -> str:
    place = located.places.get(key)
    return f" ({place})" if place else ""


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise PolicyExceeded("\n".join(dict.fromkeys(problems)))
