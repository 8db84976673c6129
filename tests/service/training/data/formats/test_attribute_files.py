"""Files of users and items beside the interactions."""

import errno
import gzip
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.data import datasets
from service.training.data.formats import attribute_columns
from service.training.interactions import Interactions

RATINGS = "user_id,item_id,rating\nann,i1,4\nbob,i2,2\n"
USERS = "user_id,age,town,zip,premium,likes\nann,31,Rome,00501,True,jazz|rock\nbob,,Bern,3000,false,ska\n"
OF_ANN = {"age": 31, "town": "Rome", "zip": "00501", "premium": True, "likes": ["jazz", "rock"]}
OF_BOB = {"town": "Bern", "zip": "3000", "premium": False, "likes": ["ska"]}


def read(folder: Path, files: dict[str, str | bytes], source: str = "") -> Interactions:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return datasets.read(str(folder / source))


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz", "Users.CSV"])
@pytest.mark.parametrize("source", ["", "ratings.csv", "events.csv"])
def test_a_table_of_users_lies_beside_the_interactions(tmp_path: Path, name: str, source: str) -> None:
    """Of a directory as of a file. A column has one type: numbers, flags, several categories or categories."""
    content = gzip.compress(USERS.encode()) if name.endswith(".gz") else USERS.encode()
    data = read(tmp_path, {source or "part-0.csv": RATINGS, name: content}, source)
    assert data.user_catalogue.attributes == {"ann": OF_ANN, "bob": OF_BOB}
    assert f"{name}: attributes of 2 users: age, town, zip, premium, likes." in data.report.notes
    assert len(data) == 2


@pytest.mark.parametrize("name", ["users.jsonl", "users.parquet"])
def test_values_with_types_are_kept(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "ann", **OF_ANN, "score": 0.5, "nested": {"a": 1}},
        {"id": "bob", **OF_BOB, "age": None, "score": float("nan"), "nested": {"a": 2}},
    ]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows).replace("NaN", "null"))
    data = read(tmp_path, {"ratings.csv": RATINGS}, "ratings.csv")
    assert data.user_catalogue.attributes == {"ann": {**OF_ANN, "score": 0.5}, "bob": OF_BOB}


def test_items_have_titles_and_attributes(tmp_path: Path) -> None:
    """In the columns of any table, and in the form of `recollect items import`; what the API refuses is left out."""
    header = "item_id;Title;genres;Unit Price;1st;description;title\n"
    rows = f"i1;Heat;Crime|Drama|;7.50;x;{'long ' * 80};a\ni2;;Comedy;8;y;short;b\n;Nameless;;;;;\nbroken\n"
    data = read(tmp_path, {"ratings.csv": RATINGS, "items.csv": header + rows}, "ratings.csv")
    assert data.catalogue.titles == {"i1": "Heat"}
    assert data.catalogue.attributes == {
        "i1": {"genres": ["Crime", "Drama"], "Unit_Price": 7.5, "_1st": "x"},
        "i2": {"genres": ["Comedy"], "Unit_Price": 8, "_1st": "y", "description": "short"},
    }
    assert "items.csv: 2 rows are broken or have no id and were left out." in data.report.notes
    (tmp_path / "items.csv").unlink()
    line = {"item_id": "i1", "title": "Heat", "attributes": {"genres": ["Crime"], "year": 1995}, "hidden": False}
    data = read(tmp_path, {"items.jsonl": json.dumps(line)}, "ratings.csv")
    assert data.catalogue.titles == {"i1": "Heat"}
    assert data.catalogue.attributes == {"i1": {"genres": ["Crime"], "year": 1995}}


def test_the_files_of_recbole(tmp_path: Path) -> None:
    """A directory of atomic files: types in the header say what is a category and what several."""
    files: dict[str, str | bytes] = {
        "x.inter": "user_id:token\titem_id:token\trating:float\n1\t7\t4\n2\t8\t3\n",
        "x.user": "user_id:token\tage:token\tgender:token\n1\t24\tM\n2\t53\tF\n",
        "x.item": "item_id:token\tmovie_title:token_seq\tgenre:token_seq\n"
        "7\tToy Story\tAnimation Comedy\n8\tHeat\tCrime\n",
    }
    for source in ("", "x.inter"):
        data = read(tmp_path, files, source)
        assert data.user_catalogue.attributes == {"1": {"age": 24, "gender": "M"}, "2": {"age": 53, "gender": "F"}}
        assert data.catalogue.titles == {"7": "Toy Story", "8": "Heat"}
        assert data.catalogue.attributes == {"7": {"genre": ["Animation", "Comedy"]}, "8": {"genre": ["Crime"]}}


def test_a_zip_archive_holds_them_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data/ratings.csv", RATINGS)
        archive.writestr("data/users.csv", USERS)
    data = datasets.read(str(tmp_path / "data.zip"))
    assert data.user_catalogue.attributes["ann"] == OF_ANN


def test_interactions_may_have_such_a_name(tmp_path: Path) -> None:
    """A file that is read as interactions is not read again as users or items."""
    data = read(tmp_path, {"users.csv": RATINGS}, "users.csv")
    assert len(data) == 2
    assert data.user_catalogue.attributes == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Its first line names no two columns"),
        (b"just text\n", "Its first line names no two columns"),
        (b"name,age\nann,3\n", "It has no column user_id, only name, age"),
        (b"PAR1 and then nothing", "is no whole Parquet file"),
        (b'user_id,note\nann,"' + b"x" * 200_000 + b'"\n', "field larger than field limit"),
        (b"\x1f\x8b broken", "is broken: gzip cannot decompress it"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_note(tmp_path: Path, content: bytes, why: str) -> None:
    data = read(tmp_path, {"ratings.csv": RATINGS, "users.csv": content}, "ratings.csv")
    assert data.user_catalogue.attributes == {}
    (note,) = [note for note in data.report.notes if note.startswith("users.csv was not read")]
    assert why in note


def test_a_directory_that_cannot_be_listed_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files may be readable all the same."""

    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    data = read(tmp_path, {"ratings.csv": RATINGS, "users.csv": USERS}, "ratings.csv")
    assert len(data) == 2
    assert data.user_catalogue.attributes == {}


@given(content=st.binary(max_size=300), name=st.sampled_from(["users.csv", "items.jsonl", "items.parquet"]))
def test_no_content_ends_the_run(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    assert len(read(folder, {"ratings.csv": RATINGS, name: content}, "ratings.csv")) == 2


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "-2.5", "", "1e3", ".5", "2."], [1, -2.5, None, 1000, 0.5, 2]),
        (["01", "2"], ["01", "2"]),
        (["1", "x"], ["1", "x"]),
        (["1e400", "1"], [None, 1]),
        (["TRUE", "false", ""], [True, False, None]),
        (["a| b|a", "c"], [["a", "b"], ["c"]]),
        (["", "|"], [None, None]),
        (["x" * 257, "y"], [None, "y"]),
    ],
)
def test_the_type_of_a_column_of_texts(texts: list[str], values: list[object]) -> None:
    assert attribute_columns.typed_texts(texts, "column") == values


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("age", "age"),
        ("Unit Price (EUR)", "Unit_Price_EUR"),
        ("1st", "_1st"),
        ("genre:token_seq", "genre"),
        ("schema", None),
        ("título", "t_tulo"),
        ("年", None),
        ("n" * 80, "n" * 64),
    ],
)
def test_a_name_is_one_that_filters_can_use(column: str, name: str | None) -> None:
    assert attribute_columns.attribute_name(column) == name


def test_no_more_attributes_than_the_api_takes(tmp_path: Path) -> None:
    names = ",".join(f"a{n}" for n in range(40))
    values = ",".join("1" for _ in range(40))
    users = f"user_id,a0,{names}\nann,2,{values}\n"
    data = read(tmp_path, {"ratings.csv": RATINGS, "users.csv": users}, "ratings.csv")
    own = data.user_catalogue.attributes["ann"]
    assert len(own) == 32
    # Of two columns of one name the first counts.
    assert own["a0"] == 2
