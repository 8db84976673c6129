"""The reference client: attempts, pauses and the deadline of one call, without a socket or a clock of its own.

`converse` yields what to do next, and is sent what came of it; `Client` and `AsyncClient` do it with threads and with
asyncio. The rules are those of docs/api.md:

- A second attempt follows a broken connection, 502, 503 and 504, with the same bytes and the same Idempotency-Key. No
  other status is tried again: a request that was refused with 4xx will be again.
- It follows after 10 to 50 ms, so that clients whose connections broke at once do not return at once. After 503 it
  follows when `Retry-After` has passed.
- A deadline bounds all of it. If no time is left for a pause, the first outcome counts.
- With a limit for one attempt, a second attempt also follows one that was not answered within it. A machine that lost
  its power sends no end of a connection, and its address may have moved meanwhile.
"""

import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from service.client.answers import FieldError
from service.client.calls import Call
from service.client.decoding import Undecodable, decoded
from service.client.errors import BadAnswer, ConnectionFailed, DeadlineExceeded, refusal_of

T = TypeVar("T")

_OK: Final = frozenset({200, 202})
_RETRIED: Final = frozenset({502, 503, 504})
_JITTER_S: Final = (0.010, 0.050)
_EXCERPT: Final = 200
DEADLINE_S: Final = 3.0
RETRIES: Final = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """How long and how often a call is tried.

    Attributes:
        deadline_s: Seconds for a call, all attempts and pauses together.
        retries: Further attempts after the first.
        attempt_s: Seconds for one attempt that is not the last; None for all that is left.
    """

    deadline_s: float
    retries: int
    attempt_s: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: A number is out of its range.
        """
        if not 0 < self.deadline_s < float("inf") or self.retries < 0:
            raise ValueError("A deadline is above 0 and finite, and there are 0 or more retries.")
        if self.attempt_s is not None and not self.attempt_s > 0:
            raise ValueError("The time for an attempt is above 0.")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the call and wait for the answer, at most so many seconds; a retry takes a new connection."""

    timeout_s: float
    is_retry: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """No answer came, because the connection could not be made or broke; `detail` is the cause."""

    detail: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer came in time."""


Outcome: TypeAlias = Answer | Broken | TimedOut
Conversation: TypeAlias = Generator[Attempt | Pause, Outcome | None, T]


def converse(
    call: Call[T], rules: Rules, now: Callable[[], float] = time.monotonic, rng: random.Random | None = None
) -> Conversation[T]:
    """Yield the attempts and pauses of a call, and return its result.

    After an `Attempt` it is sent the outcome, after a `Pause` nothing.

    Raises:
        ConnectionFailed: No answer came.
        DeadlineExceeded: No answer came in time.
        Refused: The service answered with an error.
        BadAnswer: The answer is not of this API.
    """
    ends_s = now() + rules.deadline_s
    outcome: Outcome | None = None
    for attempt in range(rules.retries + 1):
        timeout_s = ends_s - now()
        if rules.attempt_s is not None and attempt < rules.retries:
            timeout_s = min(timeout_s, rules.attempt_s)
        outcome = yield Attempt(timeout_s, is_retry=attempt > 0)
        pause_s = _pause_s(outcome, rng or random.Random())  # noqa: S311  # jitter, no secret
        if attempt == rules.retries or pause_s is None or now() + pause_s >= ends_s:
            break
        yield Pause(pause_s)
    if isinstance(outcome, Answer):
        return _result(call, outcome)
    if isinstance(outcome, Broken):
        raise ConnectionFailed(f"{call.method} {call.target} got no answer: {outcome.detail}.")
    raise DeadlineExceeded(f"{call.method} {call.target} was not answered within {rules.deadline_s:g} s.")


def _pause_s(outcome: Outcome | None, rng: random.Random) -> float | None:
    """Return the seconds before another attempt; None if there must be none.

    After the deadline none follows, because no time is left for it.
    """
    if isinstance(outcome, Broken | TimedOut):
        return rng.uniform(*_JITTER_S)
    if not isinstance(outcome, Answer) or outcome.status not in _RETRIED:
        return None
    # After 502 and 504 another replica may answer at once; 503 asks every client to wait.
    after_s = _retry_after_s(outcome) if outcome.status == 503 else None
    return (after_s or 0.0) + rng.uniform(*_JITTER_S)


def _retry_after_s(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _result(call: Call[T], answer: Answer) -> T:
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if answer.status in _OK:
        try:
            return call.answer(value)
        except Undecodable as error:
            raise BadAnswer(f"The answer to {call.method} {call.target} is not of this API: {error}.") from None
    problem = value if isinstance(value, dict) else {}
    detail = str(problem.get("detail") or answer.body[:_EXCERPT].decode("utf-8", "replace").strip() or "no body")
    raise refusal_of(answer.status)(
        answer.status, str(problem.get("type", "")), detail, _field_errors(problem), _retry_after_s(answer)
    )


def _field_errors(problem: dict[str, Any]) -> tuple[FieldError, ...]:
    try:
        return tuple(decoded(FieldError, error) for error in problem.get("errors", ()))
    except (TypeError, Undecodable):
        return ()
