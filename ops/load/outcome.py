"""What became of one request; frozen.

The invariant: a request has exactly one outcome, whatever number of attempts it took, and its latency counts from the
time it was meant to be sent.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["recommend", "feedback"]
UserClass = Literal["known", "unknown", "hot"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, answered or failed.

    Attributes:
        kind: What was asked.
        user_class: What sort of user it was about.
        latency_s: From the intended send time to the end of the answer, or to giving up.
        lag_s: From the intended send time until the generator turned to the request: its own lateness, not the
            service's.
        attempts: How often it was tried, 1 or more.
        status: Of the last answer; None if there was none.
        failure: The cause, None for a good answer: `connect`, `reset`, `eof`, `timeout`, `protocol`, `body` or
            `status_NNN`.
        detail: A failure in words, for the first example in the report.
        healed: The cause that made a retry necessary, None if the first attempt was final.
        degraded: The degradation level of a good answer, None for a full answer.
        shortfall: Whether a good list was shorter than asked for, and said so.
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
    healed: str | None = None
    degraded: str | None = None
    shortfall: bool = False
    events: int = 0
