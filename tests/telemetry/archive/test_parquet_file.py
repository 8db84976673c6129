import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.archive.parquet_file import FIELDS, LETTER_FIELDS, connect, read_lines, write_lines
from telemetry.archive.schema_1 import expand
from telemetry.errors import ArchiveError
from telemetry.events import encode
from tests.support.archives.archive_commits import letter, line
from tests.support.sample_events import feedback, served

ITEM = {"item_id": "318", "position": 0, "score": 4.71, "source": "personal", "propensity": 1.0}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def columns(path: Path, names: str) -> list[tuple[object, ...]]:
    with connect() as engine:
        return engine.execute(f"SELECT {names} FROM read_parquet(?)", [str(path)]).fetchall()


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    """Bytes, order and number, over more than one row group."""
    path = tmp_path / "a.parquet"
    lines = [line(feedback(event_id=f"event-{seq}"), seq) for seq in range(1, 30_001)]
    assert write_lines(path, iter(lines)) == len(lines)
    assert list(read_lines(path)) == lines
    assert path.stat().st_size < sum(map(len, lines)) / 3
    assert list(tmp_path.iterdir()) == [path]


def test_the_columns_are_the_fields(tmp_path: Path) -> None:
    """Times are timestamps in UTC; fields that a class lacks are null; items are a list of structures."""
    path = tmp_path / "a.parquet"
    times = {"client_time": "2026-11-21T03:02:03+02:00", "received_at": "2026-11-21T01:02:03.456Z"}
    write_lines(path, [line(served(items=[ITEM]), 1), line(feedback(**times, value=4.5, marks=["clock_skew"]), 2)])
    first, second = columns(path, "class, seq, items, value, marks, received_at::VARCHAR, client_time::VARCHAR")
    assert first == ("served", 1, [ITEM], None, None, "2026-11-21 01:02:03.456", None)
    assert second == ("feedback", 2, None, 4.5, ["clock_skew"], "2026-11-21 01:02:03.456", "2026-11-21 01:02:03")
    with connect() as engine:
        described = engine.execute(f"DESCRIBE SELECT * FROM read_parquet('{path}')").fetchall()
    assert [column[0] for column in described] == [*FIELDS, "line"]


def test_items_are_the_same_rows_whichever_schema_a_line_has(tmp_path: Path) -> None:
    """One value for all items, one for each, no items, and lines of before."""
    path = tmp_path / "a.parquet"
    other = {**ITEM, "item_id": 'é"', "position": 1, "score": 3, "source": "popular", "propensity": 0.25}
    lists = [[ITEM, {**ITEM, "position": 1}], [ITEM, other], [other, ITEM], [{**ITEM, "position": 7}], []]
    lines = [line(served(items=rows), seq) for seq, rows in enumerate(lists, 1)]
    write_lines(path, [*lines, *map(expand, lines)])
    assert [items for (items,) in columns(path, "items")] == [*lists, *lists]
    assert list(read_lines(path)) == [*lines, *map(expand, lines)]


@pytest.mark.parametrize("client_time", ["2026-11-21T23:59:60Z", "soon"])
def test_a_time_that_is_none_is_null_and_stays_in_the_line(tmp_path: Path, client_time: str) -> None:
    """A leap second or nonsense keeps no line from being compacted."""
    path = tmp_path / "a.parquet"
    lines = [line(feedback(client_time=client_time), 1)]
    write_lines(path, lines)
    assert columns(path, "client_time") == [(None,)]
    assert list(read_lines(path)) == lines


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXTS, TEXTS, st.floats(allow_nan=False, allow_infinity=False)), max_size=8))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, float]]) -> None:
    """Quotes, control characters, line separators, anything that JSON can hold; and no line at all."""
    path = tmp_path_factory.mktemp("texts") / "it's.parquet"
    lines = [
        encode(feedback(user_id=user, item_id=item, value=value), "p", 1, seq)
        for seq, (user, item, value) in enumerate(rows, 1)
    ]
    assert write_lines(path, lines) == len(lines)
    assert list(read_lines(path)) == lines
    assert columns(path, "user_id, item_id, value") == rows


def test_dead_letters_have_columns_of_their_own(tmp_path: Path) -> None:
    """The same file format for another kind of line."""
    path = tmp_path / "a.parquet"
    write_lines(path, [letter(7)], LETTER_FIELDS)
    assert columns(path, 'seq, reason, data, CAST("at" AS VARCHAR)') == [
        (7, "the line is not JSON", "{torn", "2026-11-21 01:02:04")
    ]


def test_an_open_file_is_read_after_its_name_is_gone(tmp_path: Path) -> None:
    """So a reader is not disturbed by an erase."""
    path = tmp_path / "a.parquet"
    write_lines(path, [line(feedback(), 1)])
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()
    try:
        assert list(read_lines(path, descriptor)) == [line(feedback(), 1)]
    finally:
        os.close(descriptor)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    """No error of the engine's gets out, and it is named which file it is."""
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ArchiveError, match=r"a\.parquet cannot be read"):
        list(read_lines(path))
    with pytest.raises(ArchiveError, match="cannot be read"):
        list(read_lines(tmp_path / "none.parquet"))
    with pytest.raises(ArchiveError, match="cannot be read or written"):
        write_lines(tmp_path / "no" / "directory.parquet", [])


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader gets one clear sentence."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ArchiveError, match=r"pip install 'recollect\[query\]'"):
        list(read_lines(tmp_path / "a.parquet"))
