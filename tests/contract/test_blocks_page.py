"""The page about blocks: its example loads, its message is the real one, its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import msgpack

from pilotflow.config.file import load_config
from pilotflow.core import node_losses, scaling, setbacks
from pilotflow.core.block_records import BlockLimits
from pilotflow.core.shapes import Nodes, why_nowhere
from pilotflow.future_errors import error_of
from pilotflow.messages.records import Status
from pilotflow.resources import BlockShape, NodeShape, Request
from pilotflow.runtime import block_keeper
from pilotflow.serialize import Packed

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "blocks.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(kind: str) -> str:
    (found,) = [match["text"] for match in FENCE.finditer(PAGE) if match["kind"] == kind]
    return found


def test_the_file_on_the_page_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(shown("yaml"), encoding="utf-8")
    config = load_config(path)
    assert config.min_block_life_s == 600.0
    assert [executor.label for executor in config.executors] == ["cpu", "gpu"]


def test_the_message_on_the_page_is_the_one_that_users_get() -> None:
    why = why_nowhere(Request(cpus_milli=9000), [Nodes(BlockShape("cpu", NodeShape(cpus_milli=8000)))])
    error = error_of(Status.TOO_LARGE, Packed(msgpack.encode([why]), (), ()), "simulate")
    assert f"{error}\n" == shown("text")


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert f"a GPU counts as {scaling.GPU_CORES} cores" in PAGE
    assert f"lost within {setbacks.YOUNG_S:g} s" in PAGE
    assert f"up to {setbacks.MAX_BACKOFF_S:g} seconds" in PAGE
    assert (BlockLimits.start_retries, "after three in a row" in PAGE) == (3, True)
    assert (node_losses.LOSSES, node_losses.EXCLUDED_S) == (2, 3600.0)
    assert f"at most {node_losses.EXCLUDED_MAX} nodes" in PAGE
    assert (block_keeper.SUBMIT_S, "their turn after a second" in PAGE) == (1.0, True)


def test_links_of_the_page_and_to_it_lead_somewhere() -> None:
    for page in (DOCS / "configuration.md", DOCS / "architecture.md"):
        assert "(blocks.md)" in page.read_text(encoding="utf-8")
