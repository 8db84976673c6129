"""The application log never blocks and never breaks a line."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.config import LogConfig, from_env
from service.errors import UsageError
from service.logs import ApplicationLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("restored_root")
def test_lines_are_json_with_time_level_logger_and_process(tmp_path: Path) -> None:
    """Lines of structlog and of the standard library have one format."""
    log = ApplicationLog(tmp_path, "replica-7", LogConfig())
    log.start()
    structlog.get_logger("recollect.test").info("swapped", version="v1")
    logging.getLogger("aiohttp.server").error("broken %s", "pipe")
    structlog.get_logger("recollect.test").debug("too quiet")
    log.stop()
    first, second = lines(tmp_path / "replica-7.log")
    assert (first["event"], first["version"], first["level"]) == ("swapped", "v1", "info")
    assert (first["logger"], first["process"]) == ("recollect.test", "replica-7")
    assert (second["event"], second["level"], second["logger"]) == ("broken pipe", "error", "aiohttp.server")


@pytest.mark.usefixtures("restored_root")
def test_a_container_gets_the_lines_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same lines, in no file and in no folder; the stream stays open."""
    log = ApplicationLog(tmp_path / "logs", "replica-0", LogConfig(output="stderr"))
    log.start()
    structlog.get_logger("recollect.test").info("swapped", version="v1")
    log.stop()
    print("after", file=sys.stderr)
    line, after = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["event"], json.loads(line)["process"], after) == ("swapped", "replica-0", "after")
    assert not (tmp_path / "logs").exists()


@pytest.mark.usefixtures("restored_root")
def test_lines_that_standard_error_refuses_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of a container's output may be gone."""
    with (tmp_path / "read-only").open("x+"), (tmp_path / "read-only").open() as unwritable:
        monkeypatch.setattr(sys, "stderr", unwritable)
        log = ApplicationLog(tmp_path, "replica-0", LogConfig(output="stderr"))
        log.start()
        structlog.get_logger("recollect.test").info("swapped")
        log.stop()
    assert log.dropped_lines == 1


@pytest.mark.usefixtures("restored_root")
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(), max_size=50)
    | st.sampled_from(["\r\n{}", "\x1b[31m", "\u2028", "\x00", "\ud800", "x" * 9999])
)
def test_any_text_stays_one_valid_line(tmp_path: Path, text: str) -> None:
    """Line breaks, escapes, lone surrogates and long texts cannot forge or break a line."""
    path = tmp_path / "p.log"
    path.unlink(missing_ok=True)
    log = ApplicationLog(tmp_path, "p", LogConfig())
    log.start()
    structlog.get_logger("recollect.test").info("said", text=text)
    log.stop()
    (line,) = lines(path)
    assert line["event"] == "said"
    assert str(line["text"]).startswith(text[:1000])
    assert len(path.read_bytes()) < 20_000
    assert log.dropped_lines == 0


@pytest.mark.usefixtures("restored_root")
def test_a_hanging_disk_drops_lines_and_blocks_no_caller(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """If the log file is a pipe without a reader, callers run on and the dropped lines are counted."""
    os.mkfifo(tmp_path / "p.log")
    log = ApplicationLog(tmp_path, "p", replace(LogConfig(), queue_lines=10))
    log.start()
    write = structlog.get_logger("recollect.test").info

    def shout() -> None:
        for number in range(1000):
            write("line", number=number)

    # The writer thread hangs in open(2); a thread of our own shows that callers do not.
    caller = threading.Thread(target=shout)
    caller.start()
    caller.join(timeout=10)
    assert not caller.is_alive()
    wait_until(lambda: log.dropped_lines >= 980, what="the drops to be counted")
    log.stop()
    # Read what is queued, so that the writer thread, still in open(2), ends with no broken pipe.
    received = b""
    with open(os.open(tmp_path / "p.log", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:  # noqa: PTH123

        def drained() -> bool:
            nonlocal received
            received += reader.read() or b""
            return received.count(b"\n") == 1000 - log.dropped_lines

        wait_until(drained, what="the queued lines")


@pytest.mark.usefixtures("restored_root")
def test_a_full_disk_is_counted_and_not_raised(tmp_path: Path) -> None:
    """A failed write loses its line only."""
    (tmp_path / "p.log").symlink_to("/dev/full")
    log = ApplicationLog(tmp_path, "p", LogConfig())
    log.start()
    structlog.get_logger("recollect.test").error("lost")
    log.stop()
    assert log.dropped_lines >= 1


@pytest.mark.usefixtures("restored_root")
def test_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    """The oldest file is removed."""
    log = ApplicationLog(tmp_path, "p", replace(LogConfig(), file_bytes=2000, file_count=2))
    log.start()
    for _ in range(200):
        structlog.get_logger("recollect.test").warning("x" * 100)
    log.stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.log", "p.log.1", "p.log.2"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3 * 2300


def test_an_unknown_level_is_refused() -> None:
    """The sentence names the variable and its values."""
    with pytest.raises(UsageError, match="RECOLLECT_LOG_LEVEL must be debug, info, warning or error"):
        from_env({"RECOLLECT_HOME": "var", "RECOLLECT_LOG_LEVEL": "loud"})
