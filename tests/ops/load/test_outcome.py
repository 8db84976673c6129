import dataclasses

import pytest

from ops.load.outcome import Outcome


def test_an_outcome_cannot_be_changed_and_is_good_unless_a_cause_is_named() -> None:
    """What became of a request is settled once."""
    outcome = Outcome(kind="recommend", user_class="hot", latency_s=0.1, lag_s=0.0, attempts=1, status=200)
    assert (outcome.failure, outcome.retry_cause, outcome.degraded) == (None, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.status = 500  # type: ignore[misc]  # the point of the test
