"""What is told of the stderr of workers that died."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from pilotflow.runtime.last_words import LastWords, of_step
from pilotflow.runtime.worker_files import STDERR, of_worker


def test_the_last_lines_of_both_files_are_shown_with_where_they_are(tmp_path: Path) -> None:
    own = of_worker(tmp_path, STDERR, 17)
    own.parent.mkdir()
    own.write_text("".join(f"line {number}\n" for number in range(100)))
    (tmp_path / "stderr").write_text("terminate called \x1b[31mafter\n")
    assert LastWords(str(tmp_path), tmp_path).of(17, 5.0) == (
        f"The stderr of its commands ({own}) ends with:\nline 95\nline 96\nline 97\nline 98\nline 99\n"
        f"The stderr that the block's workers share ({tmp_path}/stderr) ends with:\nterminate called after"
    )


def test_what_was_written_before_the_task_began_is_not_its_last_word(tmp_path: Path) -> None:
    stderr = tmp_path / "stderr"
    stderr.write_text("of another task\n")
    an_hour_ago = time.time() - 3600
    os.utime(stderr, (an_hour_ago, an_hour_ago))
    words = LastWords(str(tmp_path), tmp_path)
    assert words.of(17, 60.0) == ""
    assert "of another task" in words.of(17, 7200.0)


def test_who_has_written_nothing_has_no_last_words(tmp_path: Path) -> None:
    (tmp_path / "stderr").write_text("\n")
    assert LastWords(str(tmp_path), tmp_path).of(17, 60.0) == ""
    assert of_step("\n") == ""
    assert of_step("abort\n") == "The stderr of its step ends with:\nabort"


def test_a_file_system_that_hangs_is_waited_for_once_until_it_answers(tmp_path: Path) -> None:
    (tmp_path / "stderr").write_text("said\n")
    answers, asked = threading.Event(), []

    def read(path: Path, lines: int) -> str:
        asked.append(path)
        answers.wait(60)
        return "said"

    words = LastWords(str(tmp_path), tmp_path, read, wait_s=0.05)
    assert words.of(17, 60.0) == ""
    assert words.of(18, 60.0) == ""
    assert len(asked) <= 1
    answers.set()
    deadline = time.monotonic() + 60
    patient = LastWords(str(tmp_path), tmp_path, read, wait_s=60.0)
    assert patient.of(19, 60.0).endswith("said")
    while not words.of(20, 60.0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
