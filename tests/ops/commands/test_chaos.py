from pathlib import Path

import pytest
import typer

from ops.commands.chaos import command
from ops.console.command_runner import run
from ops.drill.frozen_redis import FrozenRedisComparison, RunPair
from ops.drill.system.own_system import OwnPaths, child_environ


def _chaos(*options: str) -> int:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("chaos")(command)
    return run(app, options, name="chaos")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--home", "{home}"], "confirm it with --yes"),
        (["--url", "http://127.0.0.1:1"], "confirm it with --yes"),
        (["--home", "{home}", "--yes"], "Nothing runs in"),
        (["--home", "{home}", "--yes", "--data", "demo"], "--data and --keep"),
        (["--faults", "meteor"], "has no 'meteor'"),
        (["--faults", "R12"], "property tests"),
        (["--rate", "0"], "--rate must be a number above 0"),
        (["--duration", "nan"], "--duration must be a number above 0"),
        (["--every", "-1"], "--every must be a number above 0"),
        (["--replicas", "0"], "--replicas"),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    """Before anything starts, with exit status 2."""
    assert _chaos(*(option.format(home=tmp_path) for option in options)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def _pairs(*ratios: float) -> FrozenRedisComparison:
    return FrozenRedisComparison(tuple(RunPair(2.0, 8.0, 2.0 * ratio, 8.0 * ratio, 0) for ratio in ratios))


def test_the_median_pair_decides() -> None:
    """One slow run may be due to the machine, half of them may not."""
    assert _pairs(1.0, 1.04, 3.0).ok
    assert not _pairs(1.0, 1.06, 1.06).ok
    assert _pairs(1.0, 1.04, 3.0).as_json()["p50_ratio"] == 1.04
    assert "p50 1.040 (at most 1.05), p99 1.040 (at most 1.25): PASS" in _pairs(1.0, 1.04, 3.0).as_lines()[-1]


def test_a_failed_request_fails_the_comparison() -> None:
    """Fast answers to the other requests do not count."""
    assert not FrozenRedisComparison((RunPair(2.0, 8.0, 2.0, 8.0, 1),)).ok


def test_an_own_system_listens_on_this_machine_without_keys_and_tls(
    tmp_path: Path,
) -> None:
    """Other settings are inherited."""
    operators = {
        "RECOLLECT_BALANCER_HOST": "0.0.0.0",
        "RECOLLECT_KEYS_REQUIRED": "true",
        "RECOLLECT_TLS_CERT": "/etc/cert.pem",
        "RECOLLECT_TLS_KEY": "/etc/key.pem",
        "RECOLLECT_SPARES": "1",
    }
    environ = child_environ(OwnPaths(tmp_path), operators)
    assert {name for name in operators if name in environ} == {"RECOLLECT_SPARES"}
    assert environ["RECOLLECT_HOME"] == str(tmp_path / "var")
