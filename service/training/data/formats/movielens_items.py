"""Reads the titles, genres, years and tags of MovieLens items: `u.item`, `movies.dat` or `movies.csv`, and `tags.csv`.

Invariant: nothing here ends a run. A file or line that cannot be read becomes a note.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from service.models.items.record import AttributeValue
from service.training.data.field_values import parse_id
from service.training.data.files.text_file import COMPRESSED_SUFFIXES
from service.training.interactions import ItemCatalogue

# The genres of columns 5 to 23 of u.item, in order (MovieLens 100K, README).
# fmt: off
_100K_GENRES: Final = (
    "", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
_100K_FIRST_GENRE: Final = 5
# str.splitlines splits at other characters too, and titles contain some of them.
_LINE_END = re.compile(r"\r\n|\n|\r")
_NO_GENRES: Final = "(no genres listed)"
# Titles end in the year of release: "Toy Story (1995)".
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_TAGS: Final = "tags.csv"
# The tags of an item that the most users gave it.
_MAX_TAGS: Final = 20

_Entry = tuple[str, str, tuple[str, ...]]


def read_catalogue(ratings: Path) -> tuple[ItemCatalogue, list[str]]:
    """Read the items beside a MovieLens file of ratings, and return one sentence for each problem."""
    plain_name = ratings.stem if ratings.suffix in COMPRESSED_SUFFIXES else ratings.name
    name, read = _FORMATS.get(plain_name, ("", _read_csv))
    path = ratings.with_name(name) if name else None
    if path is None or not path.is_file():
        return ItemCatalogue(), []
    try:
        text = _decode(path.read_bytes())
    except OSError as error:
        return ItemCatalogue(), [f"{path} cannot be read, so there are no titles: {error.strerror}."]
    titles: dict[str, str] = {}
    attributes: dict[str, dict[str, AttributeValue]] = {}
    n_broken = 0
    for entry in read(_LINE_END.split(text)):
        if entry is None:
            n_broken += 1
            continue
        item_id, title, genres = entry
        titles[item_id] = title
        attributes[item_id] = _attributes(title, genres)
    notes = [f"{path}: {n_broken} lines are no titles and were left out."] if n_broken else []
    tags = path.with_name(_TAGS)
    if read is _read_csv and tags.is_file():
        try:
            _add_tags(_decode(tags.read_bytes()), attributes)
        except OSError as error:
            notes.append(f"{tags} cannot be read, so there are no tags: {error.strerror}.")
    return ItemCatalogue(titles, attributes), notes


def _attributes(title: str, genres: tuple[str, ...]) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    if genres:
        found["genres"] = list(genres)
    year = _YEAR.search(title)
    if year is not None:
        found["year"] = int(year[1])
    return found


def _add_tags(text: str, attributes: dict[str, dict[str, AttributeValue]]) -> None:
    """Add the tags that the most users gave an item, in small letters, from lines of userId,movieId,tag,timestamp."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in _LINE_END.split(text)[1:]:
        try:
            fields = next(csv.reader([line], strict=True), [])
        except csv.Error:
            continue
        if len(fields) == 4 and (tag := fields[2].strip().lower()):
            counts[fields[1].strip()][tag] += 1
    for item_id, counter in counts.items():
        if item_id in attributes:
            ordered = sorted(counter, key=lambda tag: (-counter[tag], tag))
            attributes[item_id]["tags"] = ordered[:_MAX_TAGS]


def _decode(content: bytes) -> str:
    """Return the text: old sets are in Latin-1, new ones in UTF-8, and Latin-1 text is almost never valid UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _read_u_item(lines: Iterable[str]) -> Iterator[_Entry | None]:
    for line in filter(str.strip, lines):
        fields = line.split("|")
        flags = fields[_100K_FIRST_GENRE:]
        names = (genre for genre, flag in zip(_100K_GENRES, flags, strict=False) if genre and flag.strip() == "1")
        yield _entry(fields[0], fields[1], tuple(names)) if len(fields) > 1 else None


def _read_dat(lines: Iterable[str]) -> Iterator[_Entry | None]:
    for line in filter(str.strip, lines):
        fields = line.split("::")
        yield _entry(fields[0], fields[1], _genres(fields[2])) if len(fields) == 3 else None


def _read_csv(lines: Iterable[str]) -> Iterator[_Entry | None]:
    for number, line in enumerate(lines):
        if not line.strip() or not number:
            continue
        try:
            fields = next(csv.reader([line], strict=True))
        except csv.Error:
            yield None
            continue
        yield _entry(fields[0], fields[1], _genres(fields[2])) if len(fields) == 3 else None


def _entry(id_text: str, title: str, genres: tuple[str, ...]) -> _Entry | None:
    item_id = parse_id(id_text)
    return None if item_id is None or not title.strip() else (item_id, title.strip(), genres)


def _genres(text: str) -> tuple[str, ...]:
    return tuple(genre.strip() for genre in text.split("|") if genre.strip() and genre.strip() != _NO_GENRES)


_FORMATS: Final[dict[str, tuple[str, Callable[[Iterable[str]], Iterator[_Entry | None]]]]] = {
    "u.data": ("u.item", _read_u_item),
    "ratings.dat": ("movies.dat", _read_dat),
    "ratings.csv": ("movies.csv", _read_csv),
}
