import pytest

from ops.options.period import Period
from service.errors import UsageError


def test_dates_take_in_whole_days_and_times_are_exact() -> None:
    """A period is half open, so that periods that touch share nothing."""
    period = Period.parse("2026-11-21", "2026-11-22")
    assert "2026-11-21T00:00:00.000Z" in period
    assert "2026-11-22T23:59:59.999Z" in period
    assert "2026-11-20T23:59:59.999Z" not in period
    assert "2026-11-23T00:00:00.000Z" not in period
    exact = Period.parse("2026-11-21T02:00:00+02:00", "2026-11-21T00:00:00.001Z")
    assert (exact.start, exact.end) == ("2026-11-21T00:00:00.000Z", "2026-11-21T00:00:00.001Z")


def test_without_bounds_it_holds_everything() -> None:
    """And is false, so that nobody needs to look at times."""
    assert not Period.parse(None, None)
    assert "1970-01-01T00:00:00.000Z" in Period()
    assert Period().overlaps("2026-11-21")


@pytest.mark.parametrize(
    ("start", "end", "held"),
    [
        ("2026-11-21", None, [False, True, True]),
        (None, "2026-11-21", [True, True, False]),
        ("2026-11-21T23:59:59Z", "2026-11-22T00:00:00Z", [False, True, False]),
        ("2026-11-20T23:00:00Z", "2026-11-21T00:00:00.001Z", [True, True, False]),
    ],
)
def test_dates_that_may_hold_some_of_it(start: str | None, end: str | None, held: list[bool]) -> None:
    """Folders of other dates need not be read."""
    period = Period.parse(start, end)
    assert [period.overlaps(day) for day in ("2026-11-20", "2026-11-21", "2026-11-22")] == held


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-11-21T25:00:00Z", "20261121", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With an example of what is one."""
    with pytest.raises(UsageError, match="--from"):
        Period.parse(text, None)


def test_a_time_without_a_zone_and_an_empty_period_are_refused() -> None:
    """Neither can be meant."""
    with pytest.raises(UsageError, match="names no time zone"):
        Period.parse(None, "2026-11-21T00:00:00")
    with pytest.raises(UsageError, match="Nothing lies between"):
        Period.parse("2026-11-22", "2026-11-21")
