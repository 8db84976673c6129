"""What a search of the catalogue takes, and what the taste of a user is worth in it.

The catalogue of the first part is made up: titles of one to four words, whose frequencies follow Zipf's law with
exponent 1.1 over 50,000 words, genres and years. Its searches are the popular words of titles and rare ones, unfinished
and misspelt ones, and the broadest there are.

The second part asks each user for the item of their last interaction by one word of its title, drawn at random, of a
model that was trained without it. The measure is the mean reciprocal rank of that item. Half of the users choose the
weight of taste, and the others judge it.
"""

import dataclasses
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from ops.benchmarks.catalogues.index_cost import made_up_model
from service.lists.item_scores import ListUser
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.ranking.scoring import NO_ROWS
from service.models.snapshot import ModelSnapshot
from service.search.item_search import ItemSearch, find
from service.search.text_index import TextIndex
from service.search.words import tokens
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation import split_dataset
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.interactions import no_progress

_N: Final = 10
_DEPTH: Final = 50
_WORDS: Final = 50_000
_FACTORS: Final = 32
_MS_PER_S: Final = 1e3
_GENRES: Final = ("Action", "Comedy", "Crime", "Drama", "Horror", "Romance", "War", "Western")
WEIGHTS: Final = (0.0, 0.3, 0.6, 1.0, 2.0, 4.0)


class SearchFigures(NamedTuple):
    """What was measured.

    Attributes:
        build_s: Seconds to index all items.
        index_bytes: The memory of the index.
        median_ms: By kind of search.
        p99_ms: By kind of search.
    """

    build_s: float
    index_bytes: int
    median_ms: dict[str, float]
    p99_ms: dict[str, float]


class TasteRow(NamedTuple):
    """The mean reciprocal rank at one weight, for the users who choose it and for the others."""

    by: str
    weight: float
    choosing: float
    judging: float


def measure(items: int, searches: int) -> SearchFigures:
    """Index a made-up catalogue and search in it."""
    rng = np.random.default_rng(5)
    model = made_up_model(items, _FACTORS)
    letters = np.array(list("etaoinsrhldcumfpgwybvk"))
    vocabulary = ["".join(rng.choice(letters, length)) for length in rng.integers(4, 11, _WORDS)]
    share = 1 / np.arange(1, _WORDS + 1) ** 1.1
    drawn = rng.choice(_WORDS, size=(items, 4), p=share / share.sum())
    lengths, years = rng.integers(1, 5, items), rng.integers(1950, 2027, items)
    titles = [
        " ".join(vocabulary[word] for word in row[:length])
        for row, length in zip(drawn.tolist(), lengths.tolist(), strict=True)
    ]
    records = [
        ItemRecord(f"{title} ({year})", {"genres": [_GENRES[i % 8], _GENRES[i % 5]], "year": year})
        for i, (title, year) in enumerate(zip(titles, years.tolist(), strict=True))
    ]
    model = dataclasses.replace(model, item_records=ItemRecords.of(records))
    began_s = time.process_time()
    index = TextIndex(model)
    build_s = time.process_time() - began_s
    chosen = rng.integers(0, items, searches).tolist()
    word_of = [titles[row].split()[-1] for row in chosen]
    kinds: dict[str, Callable[[int], str]] = {
        "whole title": lambda i: titles[chosen[i]],
        "one word of a title": lambda i: word_of[i],
        "unfinished word": lambda i: word_of[i][:3],
        "misspelt word": lambda i: word_of[i][:1] + word_of[i][2:3] + word_of[i][1:2] + word_of[i][3:],
        "a genre and a year": lambda i: f"{_GENRES[i % 8]} {years[chosen[i]]}",
        "a word that thousands have": lambda i: vocabulary[i % 3],
        "one letter": lambda i: str(letters[i % letters.size]),
        "words, one of which no item has": lambda i: f"{titles[chosen[i]]} zzzzzzzz",
    }
    median_ms, p99_ms = {}, {}
    for name, text_of in kinds.items():
        times_ms = []
        for i in range(searches):
            search = ItemSearch(_N, text_of(i), None, None, NO_ROWS, ListUser(i % 1_000))
            began_s = time.process_time()
            find(model, index, search)
            times_ms.append((time.process_time() - began_s) * _MS_PER_S)
        median_ms[name], p99_ms[name] = statistics.median(times_ms), float(np.quantile(times_ms, 0.99))
    return SearchFigures(build_s, index.size_bytes, median_ms, p99_ms)


def taste(data: str, algorithm: str, users: int, seed: int, note: Callable[[str], None]) -> list[TasteRow]:
    """Measure what taste is worth in a search, with a model of an algorithm, perhaps followed by `:key=value`s."""
    dataset, _ = split_dataset.read(data, EvaluationProtocol(split="leave-one-out", seed=seed))
    train, held_out = next(iter(dataset.splits()))
    name, *settings = algorithm.split(":")
    configured = ConfiguredAlgorithm.parse(name, settings)
    note(f"fitting {name}")
    fitted = configured.algorithm.fit(train, configured.config, np.random.default_rng(seed), no_progress)
    model = dataclasses.replace(fitted, item_records=train.catalogue.records(train.items.id_of))
    index = TextIndex(model)
    rng = np.random.default_rng(seed)
    asked: list[tuple[int, int, str]] = []
    for place in rng.permutation(len(held_out)).tolist():
        item_id = held_out.items.id_of[held_out.item_rows[place]]
        words = [word for word in tokens(train.catalogue.titles.get(item_id, "")).split() if re.match("[a-z]{3}", word)]
        if words:
            asked.append((int(held_out.user_rows[place]), model.items.row_of[item_id], str(rng.choice(words))))
        if len(asked) == users:
            break
    rows = []
    for by in ("popularity", "taste"):
        for weight in WEIGHTS:
            note(f"{by} {weight:g}")
            ranks = [_reciprocal_rank(model, index, one, weight, is_personal=by == "taste") for one in asked]
            half = len(ranks) // 2
            rows.append(TasteRow(by, weight, _mean(ranks[:half]), _mean(ranks[half:])))
    return rows


def _reciprocal_rank(
    model: ModelSnapshot, index: TextIndex, asked: tuple[int, int, str], weight: float, *, is_personal: bool
) -> float:
    user_row, item_row, word = asked
    user = ListUser(user_row) if is_personal else None
    found = find(model, index, ItemSearch(_DEPTH, word, None, None, NO_ROWS, user, weight)).rows
    return 1 / (found.index(item_row) + 1) if item_row in found else 0.0


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
