"""The outcome of one request.

Invariant: a request has exactly one outcome, whatever its number of attempts, and its latency counts from its intended
send time.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["recommend", "feedback"]
UserClass = Literal["known", "unknown", "hot"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, answered or failed.

    Attributes:
        kind: List or feedback.
        user_class: The class of its user.
        latency_s: From the intended send time to the end of the answer, or to the deadline.
        lag_s: From the intended send time to the send: the generator's lateness, not the service's.
        attempts: 1 or more.
        status: The status of the last answer; None without one.
        failure: `connect`, `reset`, `eof`, `timeout`, `protocol`, `body` or `status_NNN`; None for a good answer.
        detail: A failure in words, for the first example in the report.
        retry_cause: The failure before the last retry; None without a retry.
        degraded: The degradation level of a good answer; None for full service.
        shortfall: Whether a good list stated a shortfall.
        events: Feedback events accepted by a good answer.
    """

    kind: Kind
    user_class: UserClass
    latency_s: float
    lag_s: float
    attempts: int
    status: int | None = None
    failure: str | None = None
    detail: str | None = None
    retry_cause: str | None = None
    degraded: str | None = None
    shortfall: bool = False
    events: int = 0
