from telemetry.catalogue.commit import ErasureRequest
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.events import encode
from tests.support import sample_events
from tests.support.archives.erasures import REQUESTED, line


def test_a_user_is_recognised_however_the_id_is_written() -> None:
    """By the decoded id; other users do not match."""
    matcher = LineMatcher([ErasureRequest("e", "42", "-", REQUESTED)])
    plain = line(1, "42", served=True)
    assert matcher.match(plain) is not None
    assert matcher.match(plain.replace(b'"user_id":"42"', b'"user_id": "\\u0034\\u0032"')) is not None
    for other in ("421", "142", "4", "recommendation 42"):
        assert matcher.match(line(1, other, served=True)) is None
    # The item is 42; the user is not.
    assert matcher.match(encode(sample_events.feedback(user_id="7", item_id="42"), "p", 1, 1)) is None
    assert matcher.match(b'{"user_id":["42"],"received_at":"2026"}\n') is None
    assert matcher.match(b"42") is None
