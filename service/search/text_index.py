"""The words of all items in SQLite's full-text index FTS5, in memory.

Invariants: an item has one number, by popularity in the model that the index was built for, and behind those the new
items as they come; so matches in the order of their numbers are the popular ones first. A query holds nothing but
quoted words, so that no text of a caller is read as the syntax of a query. One thread at a time uses an index.
"""

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from service.models.items.record import ItemRecord
from service.models.snapshot import ModelSnapshot
from service.search import words
from service.search.spelling import allowed_edits, distance
from service.search.words import Term

_SCHEMA: Final = """
    CREATE VIRTUAL TABLE items USING fts5(title, attributes, whole, tokenize = 'ascii', prefix = '1 2 3');
    INSERT INTO items(items, rank) VALUES('rank', 'bm25(4.0, 1.0, 0.0)');
    CREATE VIRTUAL TABLE vocabulary USING fts5vocab(items, row);
    CREATE VIRTUAL TABLE spellings USING fts5(word, tokenize = 'trigram', content = '');
    CREATE TABLE spelling_words(number INTEGER PRIMARY KEY, word TEXT UNIQUE);
"""
_INSERT: Final = "INSERT INTO items(rowid, title, attributes, whole) VALUES(?, ?, ?, ?)"
_RANKED: Final = "SELECT rowid, rank, title FROM items WHERE items MATCH ? ORDER BY rank"
_BY_NUMBER: Final = "SELECT rowid, -1.0, title FROM items WHERE items MATCH ? ORDER BY rowid"
_COUNT: Final = "SELECT count(*) FROM (SELECT 1 FROM items WHERE items MATCH ? LIMIT ?)"
_CHUNK: Final = 512
# Instructions of SQLite's machine between two looks at the clock.
_STEPS: Final = 5_000
_MOST_SPELLINGS: Final = 60
# Joins the words of a title to one, in a column of whole titles.
_JOINT: Final = "\u00b7"
_YEAR: Final = re.compile(r" (?:1[89]|20)\d\d$")
# Marks the ends of a word, which so have trigrams, too.
_END: Final = "_"


class Match(NamedTuple):
    """An item that matches.

    Attributes:
        item_id: The item.
        relevance: The smaller, the more relevant: the rank by BM25 (Robertson and Zaragoza, "The probabilistic
            relevance framework: BM25 and beyond", 2009), below 0.
        title: The words of the title.
    """

    item_id: str
    relevance: float
    title: str


class TextIndex:
    """The words of the items of a model, and of those written since.

    Args:
        model: The model as published.
    """

    def __init__(self, model: ModelSnapshot) -> None:
        self._items = model.items
        self._popular_rows = model.popular_rows
        self._popular_ranks = model.popular_ranks
        self._new_ids: list[str] = []
        self._new_number_of: dict[str, int] = {}
        self._has_spellings = False
        self._late_s = float("inf")
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._connection.executescript(_SCHEMA)
        self._connection.set_progress_handler(self._is_late, _STEPS)
        records = model.item_records
        if records is not None:
            rows = self._popular_rows.tolist()
            self._connection.execute("BEGIN")
            self._connection.executemany(
                _INSERT, ((number, *_texts(records.record(row))) for number, row in enumerate(rows, 1))
            )
            self._connection.execute("COMMIT")

    def __repr__(self) -> str:
        return f"<TextIndex {len(self._items)} items, {len(self._new_ids)} new>"

    @property
    def size_bytes(self) -> int:
        """The memory of the index."""
        (pages,), (page_bytes,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
        )
        return int(pages * page_bytes)

    def close(self) -> None:
        """Free the memory."""
        self._connection.close()

    def write(self, records: Iterable[tuple[str, ItemRecord]]) -> None:
        """Replace what is known of items, which may be new."""
        self._connection.execute("BEGIN")
        for item_id, record in records:
            number, texts = self._number(item_id), _texts(record)
            self._connection.execute("DELETE FROM items WHERE rowid = ?", (number,))
            self._connection.execute(_INSERT, (number, *texts))
            if self._has_spellings:
                self._add_spellings(word for text in texts for word in text.split(" "))
        self._connection.execute("COMMIT")

    def matches(
        self, query: Sequence[Term], *, every: bool = True, ranked: bool = True, within_s: float = float("inf")
    ) -> Iterator[Match]:
        """Yield the items that match words, the most relevant first.

        Args:
            query: At least one word.
            every: Whether an item must have all words, or one of them.
            ranked: Whether the relevance counts, which needs all matches; else popular items come first.
            within_s: How long finding them may take.

        Raises:
            TimeoutError: It takes longer.
        """
        self._late_s = time.monotonic() + within_s
        try:
            yield from self._found(_RANKED if ranked else _BY_NUMBER, _expressions(query, every=every))
        except sqlite3.OperationalError as error:
            if str(error) != "interrupted":
                raise
            raise TimeoutError from None
        finally:
            self._late_s = float("inf")

    def _found(self, statement: str, expression: str) -> Iterator[Match]:
        id_of, rows = self._items.id_of, self._popular_rows
        cursor = self._connection.execute(statement, (expression,))
        while chunk := cursor.fetchmany(_CHUNK):
            for number, relevance, title in chunk:
                place = number - 1
                is_known = place < len(id_of)
                yield Match(id_of[rows[place]] if is_known else self._new_ids[place - len(id_of)], relevance, title)

    def titled(self, query: Sequence[Term]) -> Iterator[Match]:
        """Yield the items whose whole title is made of words, or is but for a year at its end; popular ones first."""
        whole = _JOINT.join(token for term in query for token in term.tokens)
        return self._found(_BY_NUMBER, f'whole : "{whole}"')

    def count(self, query: Sequence[Term], most: int) -> int:
        """Count the items that have all words, up to a number."""
        (found,) = self._connection.execute(_COUNT, (_expressions(query, every=True), most)).fetchone()
        return int(found)

    def corrected(self, term: Term) -> Term:
        """Return a word as the items have it: itself if any has, else the nearest one, the most frequent of several."""
        if len(term.tokens) > 1 or self._is_known(term):
            return term
        (word,) = term.tokens
        most = allowed_edits(word)
        if not most:
            return term
        if not self._has_spellings:
            self._has_spellings = True
            self._connection.execute("BEGIN")
            self._add_spellings([each for (each,) in self._connection.execute("SELECT term FROM vocabulary")])
            self._connection.execute("COMMIT")
        marked = f"{_END}{word}{_END}"
        grams = " OR ".join(f'"{marked[at : at + 3]}"' for at in range(len(marked) - 2))
        near = self._connection.execute(
            "SELECT word, doc FROM (SELECT rowid FROM spellings WHERE spellings MATCH ? ORDER BY rank LIMIT ?) AS near"
            " JOIN spelling_words ON number = near.rowid JOIN vocabulary ON term = word",
            (grams, _MOST_SPELLINGS),
        ).fetchall()
        found = [(distance(word, other, most), -count, other) for other, count in near]
        best = min((entry for entry in found if entry[0] <= most), default=None)
        return term if best is None else Term((best[2],), is_prefix=False)

    def _is_known(self, term: Term) -> bool:
        word = term.text
        # Beyond every character, so that the range holds all words with this beginning.
        end = word + chr(0x10FFFF) if term.is_prefix else word
        question = "SELECT 1 FROM vocabulary WHERE term >= ? AND term <= ? LIMIT 1"
        return self._connection.execute(question, (word, end)).fetchone() is not None

    def _add_spellings(self, found: Iterable[str]) -> None:
        for word in found:
            if allowed_edits(word) == 0 or not word.isalpha():
                continue
            cursor = self._connection.execute("INSERT OR IGNORE INTO spelling_words(word) VALUES(?)", (word,))
            if cursor.rowcount:
                self._connection.execute(
                    "INSERT INTO spellings(rowid, word) VALUES(?, ?)", (cursor.lastrowid, f"{_END}{word}{_END}")
                )

    def _number(self, item_id: str) -> int:
        row = self._items.row_of.get(item_id)
        if row is not None:
            return int(self._popular_ranks[row]) + 1
        number = self._new_number_of.get(item_id)
        if number is None:
            self._new_ids.append(item_id)
            number = self._new_number_of[item_id] = len(self._items) + len(self._new_ids)
        return number

    def _is_late(self) -> int:
        return int(time.monotonic() > self._late_s)


def without_year(title: str) -> str:
    """Return the words of a title without a year at their end."""
    return _YEAR.sub("", title)


def _texts(record: ItemRecord) -> tuple[str, str, str]:
    """Return the words of the title, those of the attributes, and the whole title as a word, also without its year."""
    found: list[str] = []
    for value in record.attributes.values():
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            found += value
        elif not isinstance(value, bool):
            found.append(f"{value:.15g}")
    title = words.tokens(record.title or "")
    whole = " ".join({each.replace(" ", _JOINT): None for each in (title, without_year(title))})
    return title, words.tokens(" ".join(found)), whole


def _expressions(query: Sequence[Term], *, every: bool) -> str:
    return (" AND " if every else " OR ").join(_expression(term) for term in query)


def _expression(term: Term) -> str:
    # Words have no quotes. A whole word counts twice, so that it comes before words that only begin with it.
    phrase = f'"{" ".join(term.tokens)}"'
    return f"({phrase} OR {phrase} *)" if term.is_prefix else phrase
