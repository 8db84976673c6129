"""How many requests may be open follows from how long they take; a clock that the tests turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serving.admission import Admission, Limit


def limit(now: int = 100) -> Limit:
    return Limit(target_s=0.1, least=16, most=256, limit=now)


class Server:
    """Serves so many at once in turns, as an event loop does: the more are open, the longer each takes."""

    def __init__(self, limit: Limit, rate_per_s: float) -> None:
        self.limit = limit
        self.rate_per_s = rate_per_s
        self.now_s = 0.0

    def turn(self, offered: int) -> int:
        """Take on what is offered, and answer it at the end of the turn; returns how many were answered."""
        arrived_s = self.now_s
        taken = sum(self.limit.enter() for _ in range(offered))
        self.now_s += max(taken, 1) / self.rate_per_s
        for _ in range(taken):
            self.limit.leave(arrived_s, self.now_s)
        return taken


def test_one_more_than_the_limit_is_refused_until_one_leaves() -> None:
    """And counted."""
    limits = limit(3)
    assert [limits.enter() for _ in range(4)] == [True, True, True, False]
    assert (limits.open, limits.refused, limits.full) == (3, 1, True)
    limits.leave(0.0, 0.01)
    assert limits.enter()


@pytest.mark.parametrize("rate_per_s", [500.0, 2000.0])
def test_the_limit_settles_where_requests_take_their_time(rate_per_s: float) -> None:
    """From above and from below: about as many as are answered within the target."""
    for start in (16, 256):
        server = Server(limit(start), rate_per_s)
        for _ in range(400):
            server.turn(1000)
        assert 0.7 * rate_per_s * 0.1 <= server.limit.limit <= 1.2 * rate_per_s * 0.1


def test_a_slow_server_keeps_a_few_and_a_quick_one_stays_in_bounds() -> None:
    """However slow, some are taken on, or it would never be known that it is quick again."""
    slow = Server(limit(), 10.0)
    quick = Server(limit(), 1e6)
    for _ in range(300):
        slow.turn(1000)
        quick.turn(1000)
    assert slow.limit.limit == 16
    assert quick.limit.limit <= 256
    slow.rate_per_s = 2000.0
    for _ in range(300):
        slow.turn(1000)
    assert slow.limit.limit > 100


def test_a_quiet_server_does_not_raise_its_limit() -> None:
    """A limit that was never reached says nothing about what lies beyond it."""
    server = Server(limit(50), 1000.0)
    for _ in range(300):
        server.turn(5)
    assert server.limit.limit == 50


def test_what_left_before_it_was_begun_is_no_quick_answer() -> None:
    """Its place is free, and its time counts for nothing."""
    limits = limit(1)
    assert limits.enter()
    limits.drop()
    assert (limits.open, limits.full) == (0, False)


@given(st.lists(st.tuples(st.integers(0, 600), st.floats(1e-5, 2.0)), max_size=60))
def test_the_limit_stays_in_its_bounds_and_places_are_given_back(turns: list[tuple[int, float]]) -> None:
    """Whatever comes, and however long it takes."""
    limits, now_s = limit(), 0.0
    for offered, took_s in turns:
        taken = sum(limits.enter() for _ in range(offered))
        assert taken == min(offered, limits.open)
        for _ in range(taken):
            limits.leave(now_s, now_s + took_s)
        now_s += took_s
        assert 16 <= limits.limit <= 256
        assert limits.open == 0


@pytest.mark.parametrize(
    ("target", "limited"),
    [
        ("/v1/events", "feedback"),
        ("/v1/events?x=1", "feedback"),
        ("/v1/users/u%2F1", "feedback"),
        ("/healthz", None),
        ("/readyz", None),
        ("/recommend/healthz", "lists"),
        ("/v1/recommendations", "lists"),
        ("/v1/model", "lists"),
        ("*", "lists"),
        ("/anything", "lists"),
    ],
)
def test_the_target_alone_decides_the_limit(target: str, limited: str | None) -> None:
    """It is known before anything else of a request."""
    admission = Admission(0.1, 0.3)
    assert admission.limit_of(target) is (None if limited is None else getattr(admission, limited))
