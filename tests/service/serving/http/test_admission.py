"""Admission control: the limit of open requests follows from response times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serving.http.admission import Admission, Limit


def limit(now: int = 100) -> Limit:
    return Limit(target_s=0.1, least=16, most=256, limit=now)


class Server:
    """A simulated event loop: the more requests are open, the longer each takes."""

    def __init__(self, limit: Limit, rate_per_s: float) -> None:
        self.limit = limit
        self.rate_per_s = rate_per_s
        self.now_s = 0.0

    def turn(self, offered: int) -> int:
        """Offer requests and answer the accepted ones at the end of the turn; return their number."""
        arrived_s = self.now_s
        taken = sum(self.limit.enter() for _ in range(offered))
        self.now_s += max(taken, 1) / self.rate_per_s
        for _ in range(taken):
            self.limit.leave(arrived_s, self.now_s)
        return taken


def test_requests_beyond_the_limit_are_refused_and_counted() -> None:
    """A request that ends makes room for the next one."""
    limits = limit(3)
    assert [limits.enter() for _ in range(4)] == [True, True, True, False]
    assert (limits.open, limits.refused, limits.full) == (3, 1, True)
    limits.leave(0.0, 0.01)
    assert limits.enter()


@pytest.mark.parametrize("rate_per_s", [500.0, 2000.0])
def test_the_limit_converges_to_the_target_time(rate_per_s: float) -> None:
    """From above and below, to about the number that is answered within the target."""
    for start in (16, 256):
        server = Server(limit(start), rate_per_s)
        for _ in range(400):
            server.turn(1000)
        assert 0.7 * rate_per_s * 0.1 <= server.limit.limit <= 1.2 * rate_per_s * 0.1


def test_the_limit_has_a_lower_and_an_upper_bound() -> None:
    """A slow server still accepts some requests, so that a recovery is noticed."""
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


def test_a_limit_that_is_not_reached_does_not_rise() -> None:
    """Only a reached limit is evidence that a higher one is needed."""
    server = Server(limit(50), 1000.0)
    for _ in range(300):
        server.turn(5)
    assert server.limit.limit == 50


def test_a_dropped_request_is_no_sample() -> None:
    """It makes room, and its time is not counted."""
    limits = limit(1)
    assert limits.enter()
    limits.drop()
    assert (limits.open, limits.full) == (0, False)


@given(st.lists(st.tuples(st.integers(0, 600), st.floats(1e-5, 2.0)), max_size=60))
def test_the_limit_stays_in_its_bounds_and_every_request_ends(turns: list[tuple[int, float]]) -> None:
    """For any load and any response times."""
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
        ("/v1/recommendations/batch", "many"),
        ("/v1/items?q=toy", "searches"),
        ("/anything", "lists"),
    ],
)
def test_the_target_alone_decides_the_limit(target: str, limited: str | None) -> None:
    """It is known before anything else of a request."""
    admission = Admission(0.1, 0.3)
    assert admission.limit_of(target) is (None if limited is None else getattr(admission, limited))
