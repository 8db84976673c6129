"""Words of titles, attributes and queries, as the text index compares them (pure).

Case, diacritics and compatibility forms do not count: "Amélie" is "amelie". Scripts that are written without spaces are
split into characters, and a word of such a script in a query is a phrase of them, so that a part of a title is found.
"""

import re
import unicodedata
from functools import cache
from typing import Final, NamedTuple

# Combining marks that are diacritics; those of Indic scripts are letters.
_DIACRITICS: Final = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
# Han, kana, Thai, Lao, Burmese and Khmer.
_UNSPACED: Final = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af])"
)
_ASCII_WORDS: Final = re.compile("[a-z0-9]+")
# As in "Ocean's" and "Oceans".
_APOSTROPHES: Final = str.maketrans(dict.fromkeys("'\u2019\u02bc\uff07"))
# A word of fewer characters is a prefix of too many to be meant as one, unless it is the last.
_SHORTEST_PREFIX: Final = 3
TERMS_LIMIT: Final = 16


class Term(NamedTuple):
    """A word of a query.

    Attributes:
        tokens: The word; of a script without spaces its characters, which follow each other.
        is_prefix: Whether words count that begin with it.
    """

    tokens: tuple[str, ...]
    is_prefix: bool

    @property
    def text(self) -> str:
        """The word as it was meant."""
        return "".join(self.tokens)


def terms(query: str) -> list[Term]:
    """Return the words of a query, in order; the last one may be unfinished."""
    found = _words(query)
    return [
        Term(tuple(_pieces(word)), len(word) >= _SHORTEST_PREFIX or place == len(found) - 1)
        for place, word in enumerate(found)
    ]


def tokens(text: str) -> str:
    """Return the words of a text separated by spaces, for the index."""
    found = _words(text)
    return " ".join(found) if text.isascii() else " ".join(piece for word in found for piece in _pieces(word))


def _words(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower().translate(_APOSTROPHES))
    folded = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).casefold()
    return _word_pattern().findall(unicodedata.normalize("NFKC", _DIACRITICS.sub("", folded)))


def _pieces(word: str) -> list[str]:
    return [word] if word.isascii() else [piece for piece in _UNSPACED.split(word) if piece]


@cache
def _word_pattern() -> re.Pattern[str]:
    """Return the pattern of words: letters, digits and the marks that are parts of letters."""
    marks = "".join(re.escape(chr(code)) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M")
    return re.compile(rf"(?:[^\W_]|[{marks}])+")
