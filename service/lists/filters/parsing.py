"""From the text of a filter to its expression, with limits and a cache."""

from functools import lru_cache
from typing import Final, NamedTuple

from service.errors import FilterRefused
from service.lists.filters.expression import Expression, terms_of

LENGTH_LIMIT: Final = 4096
"""Characters of a filter."""
TERMS_LIMIT: Final = 64
"""Comparisons of a filter."""


class Filter(NamedTuple):
    """A filter, read: its expression, and the canonical text of that."""

    expression: Expression
    text: str


@lru_cache(maxsize=512)
def parse(text: str) -> Filter:
    """Read a filter; texts seen before are not parsed again.

    Raises:
        FilterRefused: The text is too long, nested too deeply, has too many comparisons or is not of the grammar.
    """
    if len(text) > LENGTH_LIMIT:
        raise FilterRefused(f"is longer than {LENGTH_LIMIT:,} characters", LENGTH_LIMIT + 1)
    if not text.strip():
        raise FilterRefused("is empty", 1)
    # lark and the parser's tables take 0.1 s, which a server without filters need not spend.
    from service.lists.filters.grammar import read

    expression = read(text)
    if (n_terms := terms_of(expression)) > TERMS_LIMIT:
        raise FilterRefused(f"has {n_terms} comparisons, and {TERMS_LIMIT} are allowed", 1)
    return Filter(expression, str(expression))
