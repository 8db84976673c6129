"""Settings, checks and signals before `up` and `balance` start anything."""

import os
import signal
from pathlib import Path

import pytest

from loadbalancer.settings import BalancerSettings
from loadbalancer.supervision.fleet import RESTART_SIGNAL
from ops.installation_run import balancer_settings, children_environ, interruptible, key_environ
from service.config import Config
from service.errors import UsageError
from service.security.api_key import new_key
from service.security.key_file import KeyFile


def test_options_override_the_environment() -> None:
    """Other settings keep their defaults."""
    environ = {"RECOLLECT_REPLICAS": "5", "RECOLLECT_PORT": "9000"}
    settings = balancer_settings(environ, replicas=2, port=None)
    assert (settings.replicas, settings.port, settings.host) == (2, 9000, "127.0.0.1")


def test_options_have_the_same_bounds() -> None:
    """The error names the variable."""
    with pytest.raises(UsageError, match="RECOLLECT_REPLICAS must be from 0 to 256, not 257"):
        balancer_settings({}, replicas=257, port=None)


def test_parts_get_absolute_folders() -> None:
    """RECOLLECT_REDIS_URL is set only if it is configured. Parts write log files: nothing rotates their output."""
    config = Config(home=Path("/srv/var"), logs=Path("/srv/logs"))
    environ = {"RECOLLECT_HOME": "var", "RECOLLECT_LOG_OUTPUT": "stderr", "PATH": "/bin"}
    folders = {"RECOLLECT_HOME": "/srv/var", "RECOLLECT_LOGS": "/srv/logs"}
    expected = {**folders, "RECOLLECT_LOG_OUTPUT": "files", "PATH": "/bin"}
    assert children_environ(config, environ) == expected
    config = Config(home=Path("/srv/var"), logs=Path("/srv/logs"), redis_url="redis://elsewhere/0")
    assert children_environ(config, environ) == {**expected, "RECOLLECT_REDIS_URL": "redis://elsewhere/0"}


def test_replicas_require_keys_once_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Listening beyond this machine without keys needs --insecure, which prints a warning."""
    config, here, everywhere = Config(home=tmp_path), BalancerSettings(), BalancerSettings(host="0.0.0.0")
    assert key_environ(config, here, insecure=False) == {}
    with pytest.raises(UsageError, match="there are no API keys"):
        key_environ(config, everywhere, insecure=False)
    assert capsys.readouterr().out == ""
    assert key_environ(config, everywhere, insecure=True) == {}
    assert capsys.readouterr().out.startswith("Insecure: 0.0.0.0:8080 requires no API keys; every client")
    with KeyFile(config.security_dir).edit() as keys:
        keys.append(new_key(("recommend",), now_s=0)[1])
    for settings in (here, everywhere):
        for insecure in (True, False):
            assert key_environ(config, settings, insecure=insecure) == {"RECOLLECT_KEYS_REQUIRED": "true"}
    assert capsys.readouterr().out == ""


def test_replicas_that_other_machines_reach_require_keys(tmp_path: Path) -> None:
    """Wherever nginx listens; nginx alone needs none before replicas that require them, and does before others."""
    config = Config(home=tmp_path)
    with pytest.raises(UsageError, match=r"10\.0\.0\.11:8101 can be reached from other machines"):
        key_environ(config, BalancerSettings(replicas_host="10.0.0.11", replicas_port=8101), insecure=False)
    alone = BalancerSettings(replicas=0, host="0.0.0.0", remote_replicas="10.0.0.12:8101,replicas.example:8081")
    assert key_environ(config, alone, insecure=False) == {}
    for local in ("127.0.0.1:8081", "localhost:8081", "10.0.0.12:8101,[::1]:8081"):
        with pytest.raises(UsageError, match="there are no API keys"):
            key_environ(config, BalancerSettings(replicas=0, host="0.0.0.0", remote_replicas=local), insecure=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_start_raises(number: signal.Signals) -> None:
    """Context managers undo what was begun; afterwards the old handlers are back."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_an_early_restart_request_is_ignored() -> None:
    """Without a handler the signal would kill the process; afterwards the old handler is back."""
    before = signal.getsignal(RESTART_SIGNAL)
    with interruptible():
        os.kill(os.getpid(), RESTART_SIGNAL)
        assert signal.getsignal(RESTART_SIGNAL) != before
    assert signal.getsignal(RESTART_SIGNAL) == before


@pytest.mark.parametrize(("number", "stops"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, False)])
def test_an_inherited_ignored_signal_still_stops_except_sighup(number: signal.Signals, stops: bool) -> None:
    """Scripts ignore SIGINT for background commands; nohup ignores SIGHUP, which stays ignored."""
    before = signal.signal(number, signal.SIG_IGN)
    interrupted = False
    try:
        with interruptible():
            signal.raise_signal(number)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(number, before)
    assert interrupted is stops
