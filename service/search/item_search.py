"""What a search finds, in its order: items whose words match, or that are like an item, and those a user likes first.

The score of an item is the sum of what applies:

- 3 if it has all words, and 2 more if they are its whole title, so that nothing below comes before that;
- relevance, 0 to 1: its rank by BM25 as a share of the best one's; half of that if it has only some of the words, 0.2
  more if its title begins with them;
- likeness, 0 to 1: its similarity to the item of `like`;
- taste, 0 to `TASTE`: where its score for the user lies among those of popular items; without a user, its popularity.
  Without words likeness is what is asked for: taste is worth a third of that, and popularity nothing.

Pure but for the text index, which belongs to one thread.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.lists import item_scores
from service.lists.item_scores import ListUser
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.search.text_index import Match, TextIndex, without_year
from service.search.words import TERMS_LIMIT, Term, terms

Rows = NDArray[np.int64]
Float64 = NDArray[np.float64]

TASTE: Final = 1.0
"""The weight of taste, chosen by `python -m ops.benchmarks search_taste`, see docs/benchmarks.md."""
_TASTE_BESIDE_LIKENESS: Final = 0.3
_ALL_WORDS: Final = 3.0
_WHOLE_TITLE: Final = 2.0
_BEGINNING: Final = 0.2
_SOME_WORDS: Final = 0.5
# An item whose id is searched for.
_ITS_ID: Final = 9.0
# More matches have no best ones by words: the popular ones of them are candidates.
_MOST_RANKED: Final = 1_000
_WITHIN_S: Final = 0.25
# Candidates, by words or likeness, that taste may bring to the front.
_POOL: Final = 200
# Popular items that a user's scores are compared with.
_REFERENCE: Final = 256


class ItemSearch(NamedTuple):
    """What is searched for.

    Attributes:
        n: How many items are wanted.
        text: Words; None without.
        like: The row of an item; None without.
        mask: Bool (n_items,), the items that match a filter; None for all.
        hidden: Rows that may not be found.
        user: The user whose taste counts; None for none.
        taste: The weight of taste or popularity.
    """

    n: int
    text: str | None
    like: int | None
    mask: NDArray[np.bool_] | None
    hidden: Rows
    user: ListUser | None
    taste: float = TASTE


class SearchResult(NamedTuple):
    """What was found.

    Attributes:
        rows: The items, best first.
        scores: Float64 (m,).
        corrected: The words that were searched for instead of misspelt ones; None if there were none.
    """

    rows: list[int]
    scores: Float64
    corrected: str | None = None


class _Pool:
    """Candidates of a search, with their relevance."""

    def __init__(self, snapshot: ModelSnapshot, allowed: NDArray[np.bool_]) -> None:
        self._row_of = snapshot.items.row_of
        self._allowed = allowed
        self.relevance: dict[int, float] = {}

    def add(self, matches: Iterator[Match], most: int, relevance: Callable[[Match], float]) -> None:
        """Add up to `most` allowed items."""
        for match in matches:
            row = self._row_of.get(match.item_id)
            if row is None or not self._allowed[row]:
                continue
            self.relevance[row] = max(self.relevance.get(row, 0.0), relevance(match))
            most -= 1
            if most <= 0:
                return


def find(snapshot: ModelSnapshot, index: TextIndex | None, search: ItemSearch) -> SearchResult:
    """Return the best items of a search.

    Args:
        snapshot: The model.
        index: The words of its items; needed for a search by words.
        search: What is searched for.
    """
    allowed = np.ones(len(snapshot.items), dtype=bool) if search.mask is None else search.mask.copy()
    allowed[search.hidden] = False
    if search.like is not None:
        allowed[search.like] = False
    corrected = None
    if search.text is None:
        if search.like is None:
            return SearchResult([], np.empty(0))
        rows, scores = _alike(snapshot, search.like, allowed, max(search.n, _POOL))
    else:
        if index is None:
            raise ValueError("A search by words needs their index.")
        relevance, corrected = _matching(snapshot, index, search.text, allowed, search.n)
        rows = np.array(list(relevance), dtype=np.int64)
        scores = np.array(list(relevance.values()), dtype=np.float64)
        if search.like is not None and rows.size:
            scores += _likeness(item_scores.of_similarity(snapshot, [search.like]).exact(rows))
    if not rows.size:
        return SearchResult([], np.empty(0), corrected)
    is_known = search.user is not None and search.user.is_known
    weight = search.taste if search.text is not None else _TASTE_BESIDE_LIKENESS * search.taste if is_known else 0.0
    if weight:
        scores += weight * _taste(snapshot, search.user, rows)
    best = scoring.sorted_page(rows, scores, snapshot.popular_ranks, 0, search.n)
    return SearchResult(best.rows.tolist(), best.scores, corrected)


def _alike(snapshot: ModelSnapshot, row: int, allowed: NDArray[np.bool_], most: int) -> tuple[Rows, Float64]:
    """Return the items most similar to one, with their similarity; those that share nothing with it are left out."""
    similar = item_scores.of_similarity(snapshot, [row])
    approximate = similar.approximate(None)
    approximate[~allowed] = -np.inf
    ranking = scoring.top_n(approximate, similar.bound, similar.exact, snapshot.popular_ranks, 0, most)
    keep = ranking.scores > 0
    return ranking.rows[keep], _likeness(ranking.scores[keep])


def _likeness(similarities: Float64) -> Float64:
    clipped: Float64 = np.clip(np.nan_to_num(similarities, neginf=0.0), 0.0, 1.0)
    return clipped


def _matching(
    snapshot: ModelSnapshot, index: TextIndex, text: str, allowed: NDArray[np.bool_], n: int
) -> tuple[dict[int, float], str | None]:
    """Return the relevance of items whose words match, by row, and the words that were searched for instead."""
    pool = _Pool(snapshot, allowed)
    own_row = snapshot.items.row_of.get(text)
    if own_row is not None and allowed[own_row]:
        pool.relevance[own_row] = _ITS_ID
    query = terms(text)[:TERMS_LIMIT]
    if not query:
        return pool.relevance, None
    most = max(n, _POOL)
    _add_matching(pool, index, query, most, every=True, are_few=_are_few(index, query))
    corrected = None
    if len(pool.relevance) < n:
        meant = [index.corrected(term) for term in query]
        if meant != query:
            before = len(pool.relevance)
            _add_matching(pool, index, meant, most, every=True, are_few=_are_few(index, meant))
            query = meant
            if len(pool.relevance) > before:
                corrected = " ".join(term.text for term in meant)
    if len(pool.relevance) < n and len(query) > 1:
        # Words that most items have say nothing beside rarer ones.
        rare = [term for term in query if 0 < index.count([term], _MOST_RANKED + 1) <= _MOST_RANKED]
        _add_matching(pool, index, rare or query, most, every=False, are_few=bool(rare))
    return pool.relevance, corrected


def _are_few(index: TextIndex, query: Sequence[Term]) -> bool:
    """Whether so few items have all words that they are ranked by them."""
    return index.count(query, _MOST_RANKED + 1) <= _MOST_RANKED


def _add_matching(
    pool: _Pool, index: TextIndex, query: Sequence[Term], most: int, *, every: bool, are_few: bool
) -> None:
    title = " ".join(token for term in query for token in term.tokens)

    def relevance(match: Match) -> float:
        found = min(1.0, match.relevance / best)
        found = _ALL_WORDS + found if every else _SOME_WORDS * found
        if match.title.startswith(title):
            found += _WHOLE_TITLE if title in {match.title, without_year(match.title)} else _BEGINNING
        return found

    best = -1.0
    if are_few:
        try:
            matches = index.matches(query, every=every, within_s=_WITHIN_S)
            first = next(matches, None)
            if first is not None:
                best = min(first.relevance, -1e-9)
                pool.add(_chained(first, matches), most, relevance)
        except TimeoutError:
            best = -1.0
        else:
            return
    pool.add(index.matches(query, every=every, ranked=False), most, relevance)
    # The popular ones need not be those whose title it is.
    pool.add(index.titled(query), most, relevance)


def _chained(first: Match, rest: Iterator[Match]) -> Iterator[Match]:
    yield first
    yield from rest


def _taste(snapshot: ModelSnapshot, user: ListUser | None, rows: Rows) -> Float64:
    """Return how much a user likes items, 0 to 1; without a known user, how popular they are."""
    if user is None or not user.is_known:
        popularity = np.log1p(snapshot.popularity[rows].astype(np.float64))
        largest = np.log1p(float(snapshot.popularity.max(initial=0.0)))
        popular: Float64 = popularity / largest if largest > 0 else np.zeros(rows.size)
        return popular
    scores = item_scores.of_user(snapshot, user)
    reference = scores.listed(snapshot.popular_rows[:_REFERENCE])
    spread = float(reference.std()) or 1.0
    liked: Float64 = 1 / (1 + np.exp(-np.clip((scores.listed(rows) - reference.mean()) / spread, -30, 30)))
    return liked
