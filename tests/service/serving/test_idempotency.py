"""A key stands for one body; what was not recorded leaves no entry; the table is bounded."""

from contextlib import ExitStack

import pytest

from service.errors import Invalid
from service.serving.idempotency import IdempotencyTable


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def record(table: IdempotencyTable, key: str | None, body: bytes) -> None:
    with table.attempt(key, body):
        pass


def test_the_same_body_may_come_again_and_another_may_not() -> None:
    """Also after a refusal of the other one."""
    table = IdempotencyTable()
    record(table, "key-0001", b"a")
    record(table, "key-0001", b"a")
    with pytest.raises(Invalid, match="another body"):
        record(table, "key-0001", b"b")
    record(table, "key-0001", b"a")
    record(table, "key-0002", b"b")
    assert len(table) == 2


def test_requests_without_a_key_are_not_held() -> None:
    """They have nothing in common."""
    table = IdempotencyTable()
    record(table, None, b"a")
    record(table, None, b"b")
    assert len(table) == 0


def test_what_was_refused_leaves_no_entry() -> None:
    """The client may correct its request under the same key."""
    table = IdempotencyTable()
    with pytest.raises(ZeroDivisionError), table.attempt("key-0001", b"a"):
        raise ZeroDivisionError
    assert len(table) == 0
    record(table, "key-0001", b"b")


def test_a_refusal_forgets_nothing_that_another_attempt_relies_on() -> None:
    """Of two attempts with one body, one refused and one still under way or recorded, the key stays."""
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


def test_the_oldest_gives_way_at_the_limit() -> None:
    """Memory is bounded whatever clients send."""
    table = IdempotencyTable(limit_keys=3)
    for number in range(5):
        record(table, f"key-{number:04d}", b"a")
    assert len(table) == 3
    record(table, "key-0001", b"b")
    with pytest.raises(Invalid):
        record(table, "key-0004", b"b")


def test_an_evicted_attempt_does_not_take_a_newer_entry_with_it() -> None:
    """An attempt that fails after its entry gave way leaves its successor alone."""
    table = IdempotencyTable(limit_keys=1)
    failing = table.attempt("key-0001", b"a")
    failing.__enter__()
    record(table, "key-0002", b"a")
    record(table, "key-0001", b"b")
    assert not failing.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    with pytest.raises(Invalid):
        record(table, "key-0001", b"a")


def test_a_key_is_held_for_its_age_from_its_first_use() -> None:
    """Repeating does not renew it."""
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
