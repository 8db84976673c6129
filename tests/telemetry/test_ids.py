import os
import re
import threading
import time
import uuid
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from telemetry.ids import rfc3339_ms, uuid7


def test_an_id_is_a_uuid_of_version_7_with_the_current_time() -> None:
    """RFC 9562: version and variant bits, and the first 48 bits are Unix milliseconds."""
    before_ms = time.time_ns() // 1_000_000
    made = [uuid7() for _ in range(1000)]
    after_ms = time.time_ns() // 1_000_000
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122
        assert before_ms <= parsed.int >> 80 <= after_ms


def test_ids_do_not_repeat_across_threads_and_forks() -> None:
    """Threads share the pool and a forked child starts its own."""
    made: list[str] = []

    def make() -> None:
        made.extend([uuid7() for _ in range(5000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tails = [text[14:] for text in made]
    assert len(set(tails)) == len(tails) == 20000
    uuid7()
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_fd, uuid7()[14:].encode())
        os._exit(0)
    os.close(write_fd)
    ours = uuid7()[14:]
    theirs = os.read(read_fd, 100).decode()
    os.close(read_fd)
    os.waitpid(child, 0)
    assert re.fullmatch(r"7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", theirs)
    assert ours != theirs


@given(st.integers(0, 7_258_118_399_999))
def test_times_are_rfc_3339_with_milliseconds(unix_ms: int) -> None:
    """Every millisecond of the years 1970 to 2199 is written exactly."""
    whole_s, ms = divmod(unix_ms, 1000)
    expected = datetime.fromtimestamp(whole_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert rfc3339_ms(unix_ms / 1000) == f"{expected}.{ms:03d}Z"
