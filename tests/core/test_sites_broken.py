"""Site files that are broken in every way: located messages, never a traceback, and nothing is believed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotflow.config.site_file import read_site
from pilotflow.errors import ConfigError
from tests.core.test_sites import SITE

LOCATED = re.compile(r"(?P<file>.+?):[0-9]+:[0-9]+: \S.*", re.DOTALL)
WRONG_VALUES = [
    "[]",
    "{}",
    "7",
    "-1",
    "null",
    "true",
    "1e99",
    "'x'",
    "[[1]]",
    "{a: {b: c}}",
    "soon",
    "12q",
    "*a",
    "&a [*a]",
]
KEYS = re.findall(r"([a-z_]+):", SITE)


def a_wrong_value(dice: random.Random, text: str) -> str:
    places = list(re.finditer(r": *([^\s,\[\]{}][^,\]}\n]*)", text))
    at = dice.choice(places)
    return text[: at.start(1)] + dice.choice(WRONG_VALUES) + text[at.end(1) :]


def a_wrong_key(dice: random.Random, text: str) -> str:
    key = dice.choice(KEYS)
    return text.replace(f"{key}:", f"{key[:-1]}{dice.choice('qxz')}:", 1)


def a_lost_line(dice: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    del lines[dice.randrange(len(lines))]
    return "".join(lines)


def a_doubled_line(dice: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    return "".join([*lines[:at], lines[at], *lines[at:]])


def a_shifted_line(dice: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    lines[at] = " " * dice.randint(1, 5) + lines[at]
    return "".join(lines)


def a_strange_character(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text))
    return text[:at] + dice.choice("\t{}[]:,*&!|>%@`\"'\0\x07\ud800") + text[at:]


def a_cut(dice: random.Random, text: str) -> str:
    return text[: dice.randrange(len(text))]


MUTATIONS = [a_wrong_value, a_wrong_key, a_lost_line, a_doubled_line, a_shifted_line, a_strange_character, a_cut]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_file_is_refused_with_places(mutation: Callable[[random.Random, str], str], tmp_path: Path) -> None:
    dice = random.Random(mutation.__name__)
    path = tmp_path / "site.yaml"
    refused = 0
    for _ in range(60):
        text = SITE
        for _ in range(dice.randint(1, 3)):
            text = mutation(dice, text) or "x"
        path.write_bytes(text.encode(errors="surrogatepass"))
        try:
            read_site(path)
        except ConfigError as error:
            refused += 1
            for line in str(error).splitlines():
                match = LOCATED.fullmatch(line)
                assert match is not None, f"no place in {line!r} of:\n{text}"
                assert match["file"] == str(path)
                assert "Traceback" not in line
    assert refused >= 15, "a mutation that breaks nothing tests nothing"
