"""What a drill of nodes says of failed requests."""

import io
import math
import re
from pathlib import Path

from ops.drill.drill_load import RequestSample
from ops.nodes.node_journal import NodeJournal
from ops.nodes.nodes_report import NodesReport, described


def test_a_failure_explains_itself() -> None:
    """By the causes of both attempts, when they were sent, and what happened then on the nodes and to the load."""
    now_s = [0.0]
    journal = NodeJournal(lambda: now_s[0])
    for at_s, text in ((1.0, "too early"), (9.5, "has lost its power"), (11.0, "Entering FAULT STATE"), (20.0, "late")):
        now_s[0] = at_s
        journal.add("two", text)
    samples = [RequestSample(at_s, 0.01, "recommend", 1, None, None) for at_s in (1.0, 2.0, 20.0)]
    samples += [RequestSample(at_s, 4.0, "recommend", 2, "silent", "timeout") for at_s in (10.25, 10.0, 10.5)]
    samples.append(RequestSample(10.75, 0.2, "feedback", 1, None, "status", lag_s=0.3))
    # It was due before the late one left.
    samples.append(RequestSample(10.8, 0.2, "feedback", 1, None, None, lag_s=0.26))
    report = NodesReport()
    report.take(samples, journal)
    assert (report.requests, report.retried, report.failed) == (8, 3, {"timeout": 3, "status": 1})
    assert not report.kept
    lines = described(report).splitlines()
    assert lines[1:-1] == [
        "3 of these (recommend) failed by silent, then timeout; they were due from 10.00 s to 10.50 s, 0 of them late.",
        "1 of these (feedback) failed by status; they were due from 10.75 s to 10.75 s, 1 of them late.",
        "Around these moments:",
        "  9.50 s, two: has lost its power",
        "  10.75 s, load: a request left 0.30 s late",
        "  11.00 s, two: Entering FAULT STATE",
    ]


def test_a_journal_begins_with_the_load() -> None:
    """Whatever the clock says then: what happened before explains no failed request."""
    now_s = [3.0]
    journal = NodeJournal(lambda: now_s[0])
    journal.add("one", "takes the address")
    now_s[0] = 4.5
    assert journal.begin() == 4.5
    now_s[0] = 6.0
    journal.add("one", "has lost its power")
    assert [str(note) for note in journal.between(-math.inf, math.inf)] == ["1.50 s, one: has lost its power"]


def test_a_journal_keeps_what_a_program_says(tmp_path: Path) -> None:
    """All of it in a file, and what matters as notes without the program's own time, which has whole seconds."""
    journal = NodeJournal(lambda: 5.0)
    said = b"Thu Nov 26 15:51:40 2026: (recollect) Entering MASTER STATE\nThu Nov  6 15:51:41 2026: other\n"
    journal.follow("one", io.BytesIO(said), tmp_path / "out", re.compile("STATE")).join()
    assert (tmp_path / "out").read_bytes() == said
    assert [str(note) for note in journal.between(0, 9)] == ["5.00 s, one: (recollect) Entering MASTER STATE"]
