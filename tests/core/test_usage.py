"""What jobs asked for and used, exactly, and the page that shows it: well-formed, without anything from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pilotflow.resources import Request
from pilotflow.workflow.usage import NodeSpan, Usage, Use, lanes, over_time
from pilotflow.workflow.usage_page import BARS_MAX, page

GIB = 1 << 30
VOID = {"meta"}
REFERS = ("src", "href", "xlink:href", "action", "data", "poster", "srcset", "background")


def use(number: int = 0, start: float = 0.0, end: float = 10.0, **more: object) -> Use:
    given: dict[str, object] = {
        "job": number,
        "name": f"job_{number}",
        "stage": "job_{i}",
        "attempt": 1,
        "how": "completed",
        "node": "n1",
        "ready_s": 0.0,
        "start_s": start,
        "end_s": end,
        "request": Request(2000, GIB, runtime_s=20.0),
        "cores": 1.5,
        "peak_bytes": GIB * 3 // 4,
        **more,
    }
    return Use(**given)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Checks that what is opened is closed, and collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.refers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [f"{tag} {name}={value}" for name, value in attrs if name in REFERS or name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [f"{tag} {name}={value}" for name, value in attrs if name in REFERS]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Page:
    found = Page()
    found.feed(text)
    found.close()
    assert not found.open
    return found


def check_is_self_contained(text: str) -> Page:
    found = read(text)
    assert not found.refers
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(found.tags)
    assert not re.search(r"https?:|url\(|@import|file:", text)
    return found


def test_the_mean_over_time_is_exact() -> None:
    assert over_time([(0, 4, 1.0), (1, 3, 2.0)], 4, 4) == [1, 3, 3, 1]
    assert over_time([(0.5, 2.5, 4.0)], 4, 4) == [2, 4, 2, 0]
    assert over_time([(0.25, 0.75, 4.0), (3.5, 9, 1.0)], 4, 4) == pytest.approx([2, 0, 0, 0.5])
    assert over_time([(1, 1, 5.0)], 0, 3) == [0, 0, 0]
    total = sum(over_time([(0.1 * n, 0.1 * n + 0.7, 1.0) for n in range(50)], 6, 17)) * 6 / 17
    assert total == pytest.approx(50 * 0.7)


def test_attempts_lie_on_the_first_free_row() -> None:
    placed, rows = lanes([use(0, 0, 5), use(1, 1, 2), use(2, 2, 9), use(3, 5, 6)])
    assert rows == 2
    assert [(row, one.job) for row, one in placed] == [(0, 0), (1, 1), (1, 2), (0, 3)]


def test_verdicts_name_what_was_too_much_and_too_little() -> None:
    assert use().verdicts == ()
    assert use(cores=2.5, peak_bytes=2 * GIB, end=30.0).verdicts == ("memory over", "cpu over", "runtime over")
    assert use(cores=0.1, peak_bytes=GIB // 4, end=5.0).verdicts == ("memory under", "cpu under", "runtime under")
    assert use(end=0.5, cores=0.0, request=Request()).verdicts == (), "too short to tell, and nothing was asked for"
    assert use(how="failed", end=1.5).verdicts == (), "one that failed says nothing about its runtime"


def test_sums_are_those_of_nodes_and_jobs() -> None:
    usage = Usage("1", "w", (use(), use(1, 10, 20)), (NodeSpan("n1", 4.0, 0.0, 20.0),), 20.0)
    assert (usage.core_s, usage.asked_core_s, usage.used_core_s) == (80, 40, 30)
    (stage,) = usage.stages()
    assert (stage.attempts, stage.memory_share, stage.cpu_share, stage.runtime_share) == (2, 0.75, 0.75, 0.5)


def test_the_page_is_well_formed_and_refers_to_nothing() -> None:
    nasty = "<script src='http://x'>&\"</script>"
    uses = tuple(
        use(n, n, n + 5.0, name=f"{nasty[:9]} {n}", stage="<b>", node=f"n{n % 3}", how="failed") for n in range(9)
    )
    nodes = tuple(NodeSpan(f"n{n}", 4.0, 0.0, 14.0) for n in range(3))
    text = page(Usage("0001", "a <&> b", uses, nodes, 14.0))
    found = check_is_self_contained(text)
    assert found.tags.count("svg") == 3 + 1 + 1
    assert "a &lt;&amp;&gt; b" in text


def test_a_large_run_makes_a_page_that_can_still_be_opened() -> None:
    uses = tuple(use(n, n * 0.01, n * 0.01 + 1 + n % 7, node=f"n{n % 100}") for n in range(20_000))
    nodes = tuple(NodeSpan(f"n{n}", 4.0, 0.0, 210.0) for n in range(100))
    text = page(Usage("1", "w", uses, nodes, 210.0))
    assert len(text) < 3_000_000
    assert check_is_self_contained(text).tags.count("rect") == BARS_MAX
    assert "The 16,000 shortest attempts are not drawn." in text


def test_a_page_of_nothing_is_a_page() -> None:
    check_is_self_contained(page(Usage("1", "w", (), (), 0.0)))
