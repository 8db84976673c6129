"""The rules of the reference client, on a written clock."""

import random

import pytest

from service.client import calls
from service.client.answers import ServedModel
from service.client.conversation import Answer, Attempt, Broken, Outcome, Pause, Rules, TimedOut, converse
from service.client.errors import (
    BadAnswer,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    Invalid,
    NotFound,
    Refused,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)

MODEL = (
    b'{"version": "v", "algorithm": "svd", "settings": {}, "measures": {}, "selection": null, "data": {}, '
    b'"created": "c", "data_as_of": "d", "n_users": 1, "n_items": 2, "n_factors": 3, "of_a_newer_service": 1}'
)
OK = Answer(200, {}, MODEL)


def answer(
    status: int, retry_after: str | None = None, body: bytes = b'{"detail": "No.", "type": "/problems/x"}'
) -> Answer:
    return Answer(status, {} if retry_after is None else {"retry-after": retry_after}, body)


def play(
    outcomes: list[Outcome],
    *,
    deadline_s: float = 3.0,
    retries: int = 1,
    attempt_s: float = 0.1,
    limit_s: float | None = None,
) -> tuple[list[Attempt | Pause], ServedModel | ClientError]:
    """Return what a conversation did, given the outcomes of its attempts, each of which takes some time."""
    clock_s = 100.0
    left = list(outcomes)
    steps: list[Attempt | Pause] = []
    conversation = converse(calls.model(), Rules(deadline_s, retries, limit_s), lambda: clock_s, random.Random(0))
    sent: Outcome | None = None
    try:
        while True:
            step = conversation.send(sent)
            steps.append(step)
            if isinstance(step, Attempt):
                clock_s += attempt_s
                sent = left.pop(0)
            else:
                clock_s += step.seconds
                sent = None
    except StopIteration as end:
        assert not left
        return steps, end.value
    except ClientError as error:
        assert not left
        return steps, error


def test_a_good_answer_takes_one_attempt() -> None:
    """Its fields become a dataclass; those of a newer service are ignored."""
    steps, result = play([OK])
    assert steps == [Attempt(3.0, is_retry=False)]
    assert result == ServedModel("v", "svd", {}, {}, None, {}, "c", "d", 1, 2, 3)


@pytest.mark.parametrize("first", [Broken("reset"), answer(502, "1"), answer(504, "1"), answer(503)])
def test_what_another_replica_may_answer_is_tried_again_soon(first: Outcome) -> None:
    """Once, after 10 to 50 ms, on a new connection and within the same deadline."""
    steps, result = play([first, OK])
    assert isinstance(result, ServedModel)
    begun, pause, retried = steps
    assert begun == Attempt(3.0, is_retry=False)
    assert isinstance(pause, Pause)
    assert 0.01 <= pause.seconds <= 0.05
    assert isinstance(retried, Attempt)
    assert retried.is_retry
    assert retried.timeout_s == pytest.approx(3.0 - 0.1 - pause.seconds)


def test_a_service_that_asks_to_wait_is_waited_for() -> None:
    """`Retry-After` of a 503 has passed before the second attempt."""
    steps, result = play([answer(503, "2"), OK])
    assert isinstance(result, ServedModel)
    assert isinstance(steps[1], Pause)
    assert 2.01 <= steps[1].seconds <= 2.05


def test_no_attempt_begins_after_the_deadline() -> None:
    """A wait that would end behind it is not begun: the refusal counts, and says when to come back."""
    steps, result = play([answer(503, "3")])
    assert len(steps) == 1
    assert isinstance(result, Unavailable)
    assert result.retry_after_s == 3.0
    steps, result = play([Broken("reset")], attempt_s=2.995)
    assert len(steps) == 1
    assert isinstance(result, ConnectionFailed)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Invalid) for status in (400, 413, 414, 415, 422)),
        *((status, Unauthorized) for status in (401, 403)),
        (404, NotFound),
        (429, TooManyRequests),
        *((status, Refused) for status in (405, 408, 421, 500, 501, 505, 301, 204)),
    ],
)
def test_other_statuses_are_not_tried_again(status: int, kind: type[Refused]) -> None:
    """They would be the same."""
    steps, result = play([answer(status, "1")])
    assert len(steps) == 1
    assert type(result) is kind
    assert (result.status, result.type, result.detail, result.retry_after_s) == (status, "/problems/x", "No.", 1.0)
    assert str(result) == f"{status}: No."


def test_the_last_outcome_counts() -> None:
    """After the retries; without any, after the first attempt."""
    _, result = play([Broken("reset"), answer(502)])
    assert isinstance(result, Unavailable)
    _, result = play([answer(502), Broken("refused")])
    assert isinstance(result, ConnectionFailed)
    assert str(result) == "GET /v1/model got no answer: refused."
    steps, result = play([Broken("reset")], retries=0)
    assert (len(steps), type(result)) == (1, ConnectionFailed)
    steps, result = play([Broken("1"), Broken("2"), Broken("3")], retries=2)
    assert (len(steps), str(result)) == (5, "GET /v1/model got no answer: 3.")


def test_a_deadline_is_an_error_of_its_own() -> None:
    """No time is left to send it again."""
    steps, result = play([TimedOut()], deadline_s=0.5, attempt_s=0.5)
    assert len(steps) == 1
    assert isinstance(result, DeadlineExceeded)
    assert str(result) == "GET /v1/model was not answered within 0.5 s."


def test_an_attempt_with_a_limit_is_followed_by_another_one() -> None:
    """Each but the last is limited; together they keep the deadline."""
    steps, result = play([TimedOut(), OK], deadline_s=3.0, attempt_s=1.0, limit_s=1.0)
    assert isinstance(result, ServedModel)
    first, pause, last = steps
    assert first == Attempt(1.0, is_retry=False)
    assert isinstance(pause, Pause)
    assert isinstance(last, Attempt)
    assert last.is_retry
    assert last.timeout_s == pytest.approx(2.0 - pause.seconds)
    steps, result = play([TimedOut(), TimedOut()], deadline_s=3.0, attempt_s=1.0, limit_s=1.0)
    assert (len(steps), type(result)) == (3, DeadlineExceeded)
    with pytest.raises(ValueError, match="The time for an attempt is above 0"):
        Rules(1.0, 1, 0.0)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"hello", "ServedModel is NoneType and no object"),
        (b"[]", "ServedModel is list and no object"),
        (b"{}", "ServedModel.version is missing"),
        (MODEL.replace(b'"v"', b"7"), "ServedModel.version is of type int"),
        (MODEL.replace(b"2,", b"true,"), "ServedModel.n_items is of type bool"),
    ],
)
def test_an_answer_of_another_service_is_an_error(body: bytes, why: str) -> None:
    """It names what is missing."""
    _, result = play([Answer(200, {}, body)])
    assert isinstance(result, BadAnswer)
    assert str(result) == f"The answer to GET /v1/model is not of this API: {why}."


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"[1]", b'{"errors": 5}', b'{"errors": [{}]}'])
def test_a_refusal_without_a_problem_is_still_a_refusal(body: bytes) -> None:
    """As of a proxy in between."""
    _, result = play([answer(403, "soon", body)])
    assert isinstance(result, Unauthorized)
    assert (result.type, result.errors, result.retry_after_s) == ("", (), None)
    assert result.detail


@pytest.mark.parametrize(("deadline_s", "retries"), [(0, 1), (float("inf"), 1), (float("nan"), 1), (1, -1)])
def test_impossible_rules_are_refused(deadline_s: float, retries: int) -> None:
    """When the client is made, not at its first call."""
    with pytest.raises(ValueError, match="A deadline is above 0"):
        Rules(deadline_s, retries)
