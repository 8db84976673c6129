"""Foreign texts reach a terminal without control characters, and keep their value as JSON."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.table import Table

from ops.console.command_runner import run
from ops.console.csv_cell import csv_cell
from ops.console.table import table
from ops.console.terminal import (
    EscapingBytes,
    EscapingStream,
    console,
    data_stream,
    escape_controls,
    escaping_output,
    unescaped,
)
from service.config import Config
from service.errors import UsageError
from tests.support.archives.archive_commits import addition, commit
from tests.support.machines.pseudo_terminal import read_to_end
from tests.support.sample_events import feedback

# A clear screen, a title by C1, a turned word, a line separator, a tag, a lone surrogate, and letters that stay.
NASTY = "\x1b[2J\x9b0;x\x07\u202eabc\u2028\U000e0041\ud800 é 漢 👩\u200d🔬"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 👩\u200d🔬\tb\n", "plain é 漢 👩\u200d🔬\tb\n"),
        ("\x1b[31m", "\\u001b[31m"),
        ("a\rb\x00\x7f\x85", "a\\u000db\\u0000\\u007f\\u0085"),
        ("\u202eevil\u2066\u200f\ufeff", "\\u202eevil\\u2066\\u200f\\ufeff"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("\ud800", "\\ud800"),
    ],
)
def test_controls_are_escaped(text: str, shown: str) -> None:
    """Line feeds, tabs and joined letters stay."""
    assert escape_controls(text) == shown


def test_escaped_json_has_the_same_value() -> None:
    """Escaping changes no printed object."""
    assert json.loads(escape_controls(json.dumps({NASTY: NASTY}, ensure_ascii=False))) == {NASTY: NASTY}


def test_a_row_of_a_table_is_one_line() -> None:
    """Line feeds in cells are escaped."""
    lines = table(("id",), [("a\nb\t" + NASTY,)]).splitlines()
    assert (len(lines), lines[1].startswith("a\\u000ab\\u0009\\u001b")) == (2, True)


def test_a_console_keeps_its_styles_and_escapes_texts(capsys: pytest.CaptureFixture[str]) -> None:
    """Only rich's own escape sequences reach the terminal."""
    shown = Table("x")
    shown.add_row(NASTY[:-3].replace("\ud800", ""), style="bold")
    with escaping_output():
        console(force_terminal=True, width=200).print(shown)
    out = capsys.readouterr().out
    assert "\x1b[1m" in out
    assert "\\u001b[2J" in out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out


def test_the_output_of_every_command_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Its output and its error."""
    app = typer.Typer()

    @app.command()
    def verb(bad: bool = False) -> None:
        print(NASTY)
        if bad:
            raise UsageError(f"{NASTY} is bad")

    outside = sys.stdout
    assert run(app, []) == 0
    assert run(app, ["--bad"]) == 2
    assert sys.stdout is outside
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "\\u001b[2J" in text
        assert not set(text) & set("\x1b\x9b\x07\u202e\u2028")


def test_data_is_unchanged_except_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and pipes get the characters themselves."""
    plain = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", EscapingStream(plain))
        assert data_stream() is unescaped(sys.stdout) is plain
        plain.isatty = lambda: True  # type: ignore[method-assign]
        data_stream().write("\x1b")
    assert plain.getvalue() == "\\u001b"
    stored = io.BytesIO()
    EscapingBytes(stored).write('{"a": "\u202e"}\n'.encode())
    assert stored.getvalue() == b'{"a": "\\u202e"}\n'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        *((same, same) for same in ("-1.5", "+1e-7", "-.5", "-3.", "a=b", "", None, -1.5, 7)),
        ("-1.5.", "'-1.5."),
        ("-1\n", "'-1\n"),
    ],
)
def test_a_csv_cell_is_no_formula_and_a_number_stays_one(value: object, written: object) -> None:
    """A formula gets an apostrophe."""
    assert csv_cell(value) == written


VERBS = [
    ["archive", "export", "--out", "-"],
    ["archive", "export", "--out", "-", "--format", "csv"],
    ["archive", "query", "SELECT item_id FROM feedback", "--format", "csv"],
    ["archive", "query", "SELECT item_id FROM feedback"],
    ["audit", "--erased", "\u202ex"],
]


def test_a_real_terminal_gets_no_control_character(tmp_path: Path) -> None:
    """On a pseudo-terminal."""
    config = Config(home=tmp_path / "var")
    commit(config.archive_dir, addition([(1, feedback(item_id="=a\u009b31m\u202eb", user_id="\u202ex"))]))
    controller, terminal = pty.openpty()
    environ = {**os.environ, "RECOLLECT_HOME": str(config.home)}
    running = [
        subprocess.Popen([sys.executable, "-m", "ops", *argv], env=environ, stdout=terminal, stderr=terminal)
        for argv in VERBS
    ]
    os.close(terminal)
    out = read_to_end(controller)
    os.close(controller)
    assert [process.wait() for process in running] == [0, 0, 0, 0, 1]
    text = out.decode()
    assert text.count("\\u202e") >= len(VERBS)
    assert not set(text) & set("\x9b\u202e")
