"""A key stands for one body, a request that is not recorded leaves no entry, and the table is bounded."""

from contextlib import ExitStack

import pytest

from service.errors import Invalid
from service.serving.feedback.idempotency import IdempotencyTable


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def record(table: IdempotencyTable, key: str | None, body: bytes) -> None:
    with table.attempt(key, body):
        pass


def test_a_key_accepts_the_same_body_and_refuses_another() -> None:
    """Also after another body was refused."""
    table = IdempotencyTable()
    record(table, "key-0001", b"a")
    record(table, "key-0001", b"a")
    with pytest.raises(Invalid, match="another body"):
        record(table, "key-0001", b"b")
    record(table, "key-0001", b"a")
    record(table, "key-0002", b"b")
    assert len(table) == 2


def test_requests_without_a_key_leave_no_entry() -> None:
    """Any number of bodies is accepted without a key."""
    table = IdempotencyTable()
    record(table, None, b"a")
    record(table, None, b"b")
    assert len(table) == 0


def test_a_request_that_is_not_recorded_leaves_no_entry() -> None:
    """The client may correct its request under the same key."""
    table = IdempotencyTable()
    with pytest.raises(ZeroDivisionError), table.attempt("key-0001", b"a"):
        raise ZeroDivisionError
    assert len(table) == 0
    record(table, "key-0001", b"b")


def test_a_failed_attempt_keeps_the_entry_of_another_attempt() -> None:
    """The key stays if another attempt with its body is under way or recorded."""
    table = IdempotencyTable()
    with ExitStack() as first:
        first.enter_context(table.attempt("key-0001", b"a"))
        with pytest.raises(ZeroDivisionError), table.attempt("key-0001", b"a"):
            raise ZeroDivisionError
        with pytest.raises(Invalid):
            record(table, "key-0001", b"b")
    with pytest.raises(ZeroDivisionError), table.attempt("key-0001", b"a"):
        raise ZeroDivisionError
    with pytest.raises(Invalid):
        record(table, "key-0001", b"b")


def test_the_oldest_entry_is_evicted_at_the_limit() -> None:
    """Memory is bounded whatever clients send."""
    table = IdempotencyTable(limit_keys=3)
    for number in range(5):
        record(table, f"key-{number:04d}", b"a")
    assert len(table) == 3
    record(table, "key-0001", b"b")
    with pytest.raises(Invalid):
        record(table, "key-0004", b"b")


def test_an_evicted_attempt_does_not_remove_a_newer_entry() -> None:
    """An attempt that fails after its entry was evicted leaves the new entry of its key in place."""
    table = IdempotencyTable(limit_keys=1)
    failing = table.attempt("key-0001", b"a")
    failing.__enter__()
    record(table, "key-0002", b"a")
    record(table, "key-0001", b"b")
    assert not failing.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    with pytest.raises(Invalid):
        record(table, "key-0001", b"a")


def test_an_entry_expires_after_its_age_from_the_first_use() -> None:
    """A repetition does not renew it."""
    clock = Clock()
    table = IdempotencyTable(age_s=10, clock_s=clock)
    record(table, "key-0001", b"a")
    clock.now_s = 9.0
    record(table, "key-0001", b"a")
    with pytest.raises(Invalid):
        record(table, "key-0001", b"b")
    clock.now_s = 10.0
    record(table, "key-0001", b"b")
    assert len(table) == 1
