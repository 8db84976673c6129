"""Random tables, written in several formats, read back the same; broken rows are named by their lines."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from service.training.data import datasets
from service.training.data.field_values import ID_LIMIT, parse_id
from service.training.interactions import Interactions

Row = tuple[str, str, float, int]

# What is an id as it stands: no blanks around, no control characters (Cc), no half characters (Cs).
plain_ids = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda text: parse_id(text) == text
)
ratings = st.integers(-10, 20).map(lambda halves: halves / 2)
times = st.integers(1, 99_999_999_999)
tables = st.lists(st.tuples(plain_ids, plain_ids, ratings, times), min_size=1, max_size=30)
garbage = st.sampled_from(
    ["", "one", ",", ",,,", ",i,1,1", "u,,1,1", "u,i,,1", "u,i,1,", "u,i,x,1", "u,i,1,x", "1,2,3,4,5"]
)


def latest(table: list[Row]) -> list[Row]:
    """Of doubled pairs the latest, slowly."""
    best: dict[tuple[str, str], tuple[int, int]] = {}
    for position, (user, item, _, seconds) in enumerate(table):
        best[user, item] = max(best.get((user, item), (-1, -1)), (seconds, position))
    return [table[position] for position in sorted(position for _, position in best.values())]


def rows_of(data: Interactions) -> list[Row]:
    assert data.timestamps is not None
    users = [data.users.id_of[row] for row in data.user_rows]
    items = [data.items.id_of[row] for row in data.item_rows]
    return list(zip(users, items, data.ratings.tolist(), data.timestamps.tolist(), strict=True))


def read_text(text: str, name: str = "table.csv") -> Interactions:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(text.encode())
        return datasets.read(str(path))


@settings(max_examples=150, deadline=None)
@given(
    table=tables,
    separator=st.sampled_from([",", "\t", ";", "|"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    order=st.permutations(["user_id", "item_id", "rating", "timestamp", "comment"]),
    mark=st.booleans(),
)
def test_a_table_with_a_header_reads_back(
    table: list[Row], separator: str, line_end: str, quoting: int, order: list[str], mark: bool
) -> None:
    """Whatever ids hold, the columns' order, the separator, line ends and quotes."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL if quoting else 0)
    writer.writerow(order)
    for user, item, rating, seconds in table:
        values = {"user_id": user, "item_id": item, "rating": rating, "timestamp": seconds, "comment": f"{user} {item}"}
        writer.writerow([values[name] for name in order])
    data = read_text(("\ufeff" if mark else "") + stream.getvalue())
    assert rows_of(data) == latest(table)
    assert data.report.n_rows == len(table)
    assert data.report.n_bad_rows == 0
    assert data.report.n_duplicates == len(table) - len(data)


@settings(max_examples=100, deadline=None)
@given(table=tables, blanks=st.lists(st.integers(0, 30), max_size=5))
def test_ratings_dat_reads_back(table: list[Row], blanks: list[int]) -> None:
    """MovieLens 1M's separator has no quotes and no escapes; blank lines are nothing."""
    table = [(user.replace(":", "."), item.replace(":", "."), rating, seconds) for user, item, rating, seconds in table]
    lines = ["::".join(map(str, row)) for row in table]
    for place in blanks:
        lines.insert(min(place, len(lines)), "")
    assert rows_of(read_text("\n".join(lines), "ratings.dat")) == latest(table)


@settings(max_examples=150, deadline=None)
@given(
    n_good=st.integers(20, 40),
    broken=st.lists(st.tuples(st.integers(0, 40), garbage), max_size=15),
    ends_with_newline=st.booleans(),
)
def test_broken_rows_are_counted_and_named(n_good: int, broken: list[tuple[int, str]], ends_with_newline: bool) -> None:
    """Every broken line, and no other, is reported with its number; empty lines are not rows."""
    lines = ["user,item,rating,timestamp"] + [f"u{i},i{i},3,{i}" for i in range(n_good)]
    for place, line in broken:
        lines.insert(min(1 + place, len(lines)), line)
    wanted = [
        number
        for number, line in enumerate(lines, start=1)
        if (line and not line.startswith("u")) or line in {"u,,1,1", "u,i,,1", "u,i,1,", "u,i,x,1", "u,i,1,x"}
    ]
    data = read_text("\n".join(lines) + ("\n" if ends_with_newline else ""))
    assert [int(example.split(":")[1]) for example in data.report.bad_examples] == [n for n in wanted if n > 1][:10]
    assert data.report.n_bad_rows == len(wanted)
    assert data.report.n_rows == n_good + len(wanted)


@given(st.text(max_size=ID_LIMIT + 5))
def test_ids_are_what_the_service_accepts(text: str) -> None:
    """1 to 128 characters after trimming, without control characters, and encodable."""
    id_ = parse_id(text)
    if id_ is None:
        stripped = text.strip()
        assert not 1 <= len(stripped) <= ID_LIMIT or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in stripped)
    else:
        assert id_ == text.strip()
        assert len(id_.encode()) >= 1


@settings(max_examples=100, deadline=None)
@given(table=tables, spaces=st.booleans(), garbage_at=st.lists(st.integers(0, 30), max_size=3))
def test_json_lines_read_back(table: list[Row], spaces: bool, garbage_at: list[int]) -> None:
    """Whatever ids hold; blank lines are nothing."""
    lines = [
        json.dumps(dict(zip(("user", "item", "rating", "ts"), row, strict=True)), ensure_ascii=spaces) for row in table
    ]
    for place in garbage_at:
        lines.insert(place, "  " if spaces else "")
    data = read_text("\n".join(lines), "table.jsonl")
    assert rows_of(data) == latest(table)
    assert (data.report.n_rows, data.report.n_bad_rows) == (len(table), 0)


@settings(max_examples=100, deadline=None)
@given(table=tables, group=st.integers(1, 7), dictionary=st.booleans())
def test_parquet_reads_back(table: list[Row], group: int, dictionary: bool) -> None:
    """Whatever ids hold, in row groups of any size."""
    columns = dict(zip(("user", "item", "rating", "ts"), map(list, zip(*table, strict=True)), strict=True))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "table.parquet")
        parquet.write_table(pa.table(columns), path, row_group_size=group, use_dictionary=dictionary)
        data = datasets.read(str(path))
    assert rows_of(data) == latest(table)
    assert (data.report.n_rows, data.report.n_bad_rows) == (len(table), 0)
