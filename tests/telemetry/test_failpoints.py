import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.errors import FailpointError
from telemetry.failpoints import FAILPOINTS, Failpoints

ROOT = Path(__file__).parents[2]


def test_a_failpoint_acts_only_on_request() -> None:
    """Without a request no failpoint acts, and neither do those that were not named."""
    for failpoints in (
        Failpoints(),
        Failpoints.parse(None),
        Failpoints.parse(" , "),
        Failpoints.parse("spool.synced:raise"),
    ):
        for name in FAILPOINTS.keys() - {"spool.synced"}:
            failpoints.hit(name)


def test_it_acts_once_at_its_hit() -> None:
    """The third hit fails, those before and after do not."""
    failpoints = Failpoints.parse("consumer.read:raise:3,consumer.planned:raise")
    failpoints.hit("consumer.read")
    failpoints.hit("consumer.read")
    with pytest.raises(FailpointError, match=r"consumer\.read was asked to fail"):
        failpoints.hit("consumer.read")
    failpoints.hit("consumer.read")
    with pytest.raises(FailpointError):
        failpoints.hit("consumer.planned")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("consumer.red:kill", "'consumer.red' is not a failpoint. The failpoints are spool.ringed, "),
        ("consumer.read", "can kill, pause, raise, not ''"),
        ("consumer.read:explode", "can kill, pause, raise, not 'explode'"),
        ("consumer.read:kill:0", "must be a number from 1, not '0'"),
        ("consumer.read:kill:x", "must be a number from 1, not 'x'"),
    ],
)
def test_an_invalid_request_is_refused(text: str, sentence: str) -> None:
    """A misspelt failpoint must not look like a drill that was survived."""
    with pytest.raises(FailpointError) as refused:
        Failpoints.parse(text)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("pause", signal.SIGSTOP)])
def test_a_process_is_killed_or_frozen_on_the_spot(action: str, number: signal.Signals) -> None:
    """What follows the failpoint does not happen."""
    wish = f"Failpoints.parse('consumer.read:{action}')"
    program = f"from telemetry.failpoints import Failpoints; {wish}.hit('consumer.read'); print('on')"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        if action == "pause":
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == number
        else:
            assert process.wait(timeout=30) == -number
            assert process.stdout is not None
            assert process.stdout.read() == b""
    finally:
        process.kill()
        process.communicate()
