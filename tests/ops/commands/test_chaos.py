from pathlib import Path

import pytest
import typer

from ops.commands.chaos import command
from ops.console.command_runner import run
from ops.drill.drill_installation import _environ, _Paths
from ops.drill.frozen_redis import Comparison, Pair


def _chaos(*options: str) -> int:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("chaos")(command)
    return run(app, options, name="chaos")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--home", "{home}"], "say --yes"),
        (["--url", "http://127.0.0.1:1"], "say --yes"),
        (["--home", "{home}", "--yes"], "Nothing runs in"),
        (["--home", "{home}", "--yes", "--data", "demo"], "--data and --keep"),
        (["--faults", "meteor"], "knows no 'meteor'"),
        (["--faults", "R12"], "property tests"),
        (["--rate", "0"], "--rate must be a number above 0"),
        (["--duration", "nan"], "--duration must be a number above 0"),
        (["--every", "-1"], "--every must be a number above 0"),
        (["--replicas", "0"], "--replicas"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    """Before anything is started, with exit status 2."""
    assert _chaos(*(option.format(home=tmp_path) for option in options)) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1


def _pairs(*ratios: float) -> Comparison:
    return Comparison(tuple(Pair(2.0, 8.0, 2.0 * ratio, 8.0 * ratio, 0) for ratio in ratios))


def test_the_median_pair_decides() -> None:
    """One bad run is the machine's; half of them are ours."""
    assert _pairs(1.0, 1.04, 3.0).ok
    assert not _pairs(1.0, 1.06, 1.06).ok
    assert _pairs(1.0, 1.04, 3.0).as_json()["p50_ratio"] == 1.04
    assert "p50 1.040 (at most 1.05), p99 1.040 (at most 1.25): PASS" in _pairs(1.0, 1.04, 3.0).as_lines()[-1]


def test_a_failed_request_fails_the_comparison() -> None:
    """Fast answers to those who got one prove nothing."""
    assert not Comparison((Pair(2.0, 8.0, 2.0, 8.0, 1),)).ok


def test_a_system_of_the_drills_own_meets_its_clients_here_whatever_the_operators_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens on this machine, without keys and without TLS; other settings are the operator's."""
    theirs = {
        "RECOLLECT_BALANCER_HOST": "0.0.0.0",
        "RECOLLECT_KEYS_REQUIRED": "true",
        "RECOLLECT_TLS_CERT": "/etc/cert.pem",
        "RECOLLECT_TLS_KEY": "/etc/key.pem",
        "RECOLLECT_SPARES": "1",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    told = _environ(_Paths(tmp_path))
    assert {name for name in theirs if name in told} == {"RECOLLECT_SPARES"}
    assert told["RECOLLECT_HOME"] == str(tmp_path / "var")
