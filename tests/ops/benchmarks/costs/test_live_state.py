from pathlib import Path

from ops.benchmarks.costs.live_state import LiveFigures, LiveTask, events_of, read, rows
from ops.benchmarks.measured_process import run_measured
from telemetry.live.live_event import last_events
from telemetry.live.state_snapshot import StateSnapshot


def test_a_small_state_is_measured(tmp_path: Path) -> None:
    """Written by one process and read by two, and it holds the events that were made."""
    task = LiveTask(str(tmp_path), 50, 4, 10, archived_lines=1000)
    written = run_measured("ops.benchmarks.costs.live_state", task, LiveFigures)
    assert written.events == 290
    assert 0 < written.state_bytes < written.peak_bytes
    snapshot = StateSnapshot.open(tmp_path)
    expected = [event for event in events_of(task, 200) if event.user_id == "user-7"]
    assert set(expected) <= set(snapshot.events("user-7"))
    assert snapshot.events("user-7") == last_events(snapshot.events("user-7"), 100)
    readers = read(tmp_path, 50, 2)
    assert len(readers) == 2
    assert all(reader.mapped_bytes == written.state_bytes for reader in readers)
    assert all(0 < reader.median_us <= reader.p99_us for reader in readers)
    assert written.lines_per_s > 0
    assert len(rows(task, written, readers)) == 11
