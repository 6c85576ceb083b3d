"""What sites and settings put into batch scripts: shell text by its name, and further options. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pilotflow.config.site import Partition, Site
from pilotflow.errors import ConfigError
from pilotflow.units import did_you_mean

_SHORT: Final = {
    "A": "account", "C": "constraint", "N": "nodes", "a": "array", "c": "cpus-per-task", "p": "partition", "q": "qos",
    "t": "time",
}  # fmt: skip
_WITHOUT_VALUE: Final = frozenset("HIOQWhksv")
"""Short options after which another may follow in the same word."""


def worker_init_text(site: Site | None, wanted: str | Sequence[str] | None) -> str:
    """The shell text that blocks run: the site's snippets of these names, or the text itself.

    Raises:
        ConfigError: what looks like a name is none of the site's.
    """
    known = {} if site is None else dict(site.worker_init)
    if wanted is None:
        return known.get("default", "")
    parts: list[str] = []
    for item in [wanted] if isinstance(wanted, str) else wanted:
        if item in known:
            parts.append(known[item].rstrip("\n"))
        elif any(char in item for char in " \n;/=$"):
            parts.append(item.rstrip("\n"))
        else:
            names = ", ".join(known) or "none"
            raise ConfigError(f"worker_init: there is no snippet '{item}'{did_you_mean(item, known)}. Known: {names}.")
    return "\n".join(parts)


def script_lines(options: Sequence[str]) -> list[str]:
    """Options of the batch system as lines for the head of a script."""
    return [option if option.startswith("#") else f"#SBATCH {option}" for option in options]


def further_lines(text: str) -> list[str]:
    """The lines of a provider's `scheduler_options`, each without what does not matter."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def lines_of_site(site: Site, defaults: Mapping[str, object]) -> frozenset[str]:
    """Further lines that a site itself puts into scripts, for any of its partitions or by default."""
    said = defaults.get("scheduler_options") or ()
    options = [option for partition in site.partitions for option in partition.scheduler_options]
    return frozenset(
        further_lines("\n".join(script_lines([*options, *(said if isinstance(said, (list, tuple)) else ())])))
    )


def batch_name(partition: Partition) -> str | None:
    """What the batch system calls a partition; None where that is its default."""
    return partition.name if partition.batch_name is None else partition.batch_name or None


def options_in(line: str) -> Iterator[str]:
    """Words of a line of a script's head that ask the batch system for something, such as `--time=1h` or `-p`."""
    if line.startswith(("#PBS", "#BSUB")):  # sbatch follows these, too
        yield line
    if not line.startswith("#SBATCH"):
        return
    try:
        words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
    except ValueError:
        words = line.split()[1:]
    yield from (word for word in words if word.startswith("-"))


def sets(word: str, option: str) -> bool:
    """Whether a word such as `--part=x`, `-px` or `-Hp` gives this long option a value, which may be abbreviated."""
    if word.startswith("#"):  # in another batch system's words: nobody knows
        return True
    if word.startswith("--"):
        name = word[2:].partition("=")[0]
        return bool(name) and option.startswith(name)
    for letter in word[1:]:
        if letter not in _WITHOUT_VALUE:
            return _SHORT.get(letter) == option
    return False
