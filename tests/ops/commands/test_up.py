"""What `up` decides before it starts anything. What it starts is tests/integration/test_up.py."""

import os
import signal
import sys
from pathlib import Path

import pytest

from loadbalancer.fleet import RESTART_SIGNAL
from loadbalancer.settings import BalancerSettings
from ops.commands import up
from ops.commands.up import balancer_settings, children_environ, guarded, interruptible
from service.config import Config
from service.errors import UsageError
from service.security.api_key import new_key
from service.security.key_file import KeyFile
from service.training.data.data_request import as_request


def test_the_command_line_comes_before_the_environment() -> None:
    """And what neither gives has its default."""
    environ = {"RECOLLECT_REPLICAS": "5", "RECOLLECT_PORT": "9000"}
    settings = balancer_settings(environ, replicas=2, port=None)
    assert (settings.replicas, settings.port, settings.host) == (2, 9000, "127.0.0.1")


def test_the_command_line_is_held_to_the_same_bounds() -> None:
    """However a value arrives."""
    with pytest.raises(UsageError, match="RECOLLECT_REPLICAS must be from 1 to 256, not 0"):
        balancer_settings({}, replicas=0, port=None)


def test_parts_are_told_their_folders_whatever_they_inherit() -> None:
    """The rest of the environment is theirs unchanged; a Redis is named only if there is one to name."""
    config = Config(home=Path("/srv/var"), logs=Path("/srv/logs"))
    environ = {"RECOLLECT_HOME": "var", "PATH": "/bin"}
    told = {"RECOLLECT_HOME": "/srv/var", "RECOLLECT_LOGS": "/srv/logs", "PATH": "/bin"}
    assert children_environ(config, environ) == told
    config = Config(home=Path("/srv/var"), logs=Path("/srv/logs"), redis_url="redis://elsewhere/0")
    assert children_environ(config, environ) == {**told, "RECOLLECT_REDIS_URL": "redis://elsewhere/0"}


def test_replicas_are_told_of_keys_once_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that none of them starts without; who listens everywhere without keys is told what that means."""
    config, here, everywhere = Config(home=tmp_path), BalancerSettings(), BalancerSettings(host="0.0.0.0")
    assert guarded(config, here, insecure=False) == {}
    with pytest.raises(UsageError, match="there are no API keys"):
        guarded(config, everywhere, insecure=False)
    assert capsys.readouterr().out == ""
    assert guarded(config, everywhere, insecure=True) == {}
    assert capsys.readouterr().out.startswith(
        "insecure: no API keys are asked for on 0.0.0.0:8080; everyone who reaches"
    )
    with KeyFile(config.security_dir).changing() as keys:
        keys.append(new_key(("recommend",), now_s=0)[1])
    for settings in (here, everywhere):
        for insecure in (True, False):
            assert guarded(config, settings, insecure=insecure) == {"RECOLLECT_KEYS_REQUIRED": "true"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_anything_runs_undoes_what_was_begun(number: signal.Signals) -> None:
    """As an exception, so that every context manager has its turn; afterwards signals do what they did."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_restart_that_comes_too_early_does_no_harm() -> None:
    """Without a handler the signal would end the process; afterwards the signal is what it was."""
    before = signal.getsignal(RESTART_SIGNAL)
    with interruptible():
        os.kill(os.getpid(), RESTART_SIGNAL)
        assert signal.getsignal(RESTART_SIGNAL) != before
    assert signal.getsignal(RESTART_SIGNAL) == before


@pytest.mark.parametrize(("number", "stops"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, False)])
def test_what_a_parent_had_us_ignore_still_stops_us_but_for_a_terminal_that_closes(
    number: signal.Signals, stops: bool
) -> None:
    """A script's background command inherits an ignored SIGINT, nohup's an ignored SIGHUP: only the latter is meant."""
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


@pytest.mark.parametrize(("status", "goes_on_with"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_a_model_that_is_held_back_does_not_keep_the_one_before_it_from_being_served(
    tmp_path: Path, status: int, goes_on_with: int
) -> None:
    """Status 3 of the training: published, not activated, and said why. Every other failure ends `up`."""
    program = (sys.executable, "-c", f"import sys; sys.exit({status})")
    assert up._provide_model(Config(home=tmp_path), as_request("demo:20x20x100"), program, os.environ) == goes_on_with
