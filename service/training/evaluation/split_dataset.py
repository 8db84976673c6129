"""A dataset with its splits into a training and a held-out side.

Invariants: both sides of a split are over the same users and items, no pair is on both, and neither is empty. The
splits are a function of the data and the protocol.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from service.errors import DataError, UsageError
from service.models.vocabulary import Vocabulary
from service.training.data import datasets
from service.training.data.data_request import DataRequest, as_request
from service.training.evaluation import splits
from service.training.evaluation.evaluation_protocol import CANONICAL_FOLDS, TIME_SPLITS, EvaluationProtocol
from service.training.evaluation.leakage import is_member, pair_keys
from service.training.evaluation.splits import Positions
from service.training.interactions import Int32, Interactions, Progress, no_progress
from telemetry.pseudonym import Pseudonymiser

_CANONICAL_FILES: Final = tuple(f"{fold}.{side}" for fold in CANONICAL_FOLDS for side in ("base", "test"))


class Split(NamedTuple):
    """The two sides of one split."""

    train: Interactions
    test: Interactions


@dataclass(frozen=True, eq=False)
class SplitDataset:
    """A dataset and its splits."""

    data: Interactions  # the whole set; with a test set of its own, the training side
    splits: Callable[[], Iterator[Split]]  # makes the splits, one after the other, the same each time
    notes: tuple[str, ...] = ()  # sentences for the reader of the result
    n_left_out: int = 0  # held-out interactions left out because their pair is on the training side too


def read(
    data: str | DataRequest,
    protocol: EvaluationProtocol,
    *,
    test: str | DataRequest | None = None,
    progress: Progress = no_progress,
    prepare: Callable[[str | DataRequest, Interactions], Interactions] = lambda _, data: data,
    pseudonyms: Pseudonymiser = datasets.NOT_MAPPED,
) -> tuple[SplitDataset, list[Interactions]]:
    """Read the data of a protocol and split it.

    Args:
        data: What to read, see `datasets.read`.
        protocol: How to split it.
        test: The test set of the split "given", in any form of `data`.
        progress: Called with the bytes read.
        prepare: (source, dataset) -> the dataset to use, such as one with its ratings on a declared scale.

        pseudonyms: See `datasets.read`.

    Returns:
        The split dataset, and the datasets that were read, for their reports.

    Raises:
        DataError: A source is refused, or nothing is held out.
        UsageError: The protocol does not fit the data.
    """
    if (protocol.split == "given") != (test is not None):
        raise UsageError("A test set is given with the split 'given', and with no other.")
    whole = prepare(data, datasets.read(data, progress, pseudonyms))
    if test is not None:
        held_out = prepare(test, datasets.read(test, progress, pseudonyms))
        return with_test_set(whole, held_out), [whole, held_out]
    if protocol.split == "canonical":
        (path_text, *_) = as_request(data).sources
        folder = Path(path_text).expanduser()
        missing = [name for name in _CANONICAL_FILES if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{data} holds no {missing[0]}: the split 'canonical' is that of the MovieLens 100K directory."
            )
        parts = {name: prepare(data, datasets.read(str(folder / name), progress)) for name in _CANONICAL_FILES}
        return with_canonical_folds(whole, parts), [whole, *parts.values()]
    return split(whole, protocol), [whole]


def split_positions(data: Interactions, protocol: EvaluationProtocol) -> Iterator[tuple[Positions, Positions]]:
    """Yield the (train, test) positions, int64, ascending, of each split but "canonical" and "given".

    Raises:
        UsageError: The dataset cannot be split so.
    """
    n, name, rng = len(data), protocol.split, np.random.default_rng(protocol.seeds().split)
    if name == "folds":
        if protocol.folds > n:
            raise UsageError(f"{n} ratings cannot be split into {protocol.folds} folds, none of them empty.")
        yield from splits.k_fold(n, protocol.folds, rng)
        return
    if name in TIME_SPLITS and data.timestamps is None:
        raise UsageError(f"The split {name!r} needs times, and {data.report.source} has none.")
    # Without times a random order decides which interaction of a user is the last.
    order = rng.permutation(n) if data.timestamps is None else data.timestamps
    if name == "leave-one-out":
        train, test = splits.leave_one_out(data.user_rows, order)
    elif name == "time":
        train, test = splits.latest_share(order, protocol.test_share)
    else:
        train, test = splits.latest_share_of_users(data.user_rows, order, protocol.test_share)
    if not train.size or not test.size:
        raise UsageError(f"{n} ratings are too few for the split {name!r}.")
    yield train, test


def split(data: Interactions, protocol: EvaluationProtocol) -> SplitDataset:
    """Split a dataset by its own users, items and times; see `split_positions`."""
    notes = []
    if protocol.split == "leave-one-out" and data.timestamps is None:
        notes.append("Without times the interaction of each user that is held out is a random one.")

    def sides() -> Iterator[Split]:
        for train, test in split_positions(data, protocol):
            yield Split(data.take(train), data.take(test))

    return SplitDataset(data, sides, tuple(notes))


def with_test_set(train: Interactions, test: Interactions) -> SplitDataset:
    """Return a single split with a test set of its own.

    Users and items that only the test set has get rows after those of the training set, so that they are predicted as
    unknown ones. A pair that is in the training set too is left out of the test set.

    Raises:
        DataError: Nothing is left to judge by.
    """
    users, items = _union(train.users, test.users), _union(train.items, test.items)
    n_new_users, n_new_items = len(users) - len(train.users), len(items) - len(train.items)
    single, n_left_out = _without_shared(_with_rows_of(train, users, items), _with_rows_of(test, users, items))
    notes = []
    if n_new_users or n_new_items:
        notes.append(
            f"The test set has {n_new_users} users and {n_new_items} items that the training set does not have; "
            "they count, and the models have not learnt them."
        )
    if n_left_out:
        notes.append(f"{n_left_out} pairs of the test set are in the training set too and are not judged.")
    return SplitDataset(single.train, lambda: iter([single]), tuple(notes), n_left_out)


def with_canonical_folds(whole: Interactions, parts: dict[str, Interactions]) -> SplitDataset:
    """Split MovieLens 100K, whose whole is `u.data`, by the parts `u1.base`, `u1.test` and so on of its publishers.

    Raises:
        DataError: A part has an id that the whole does not have, or nothing is left to judge by.
    """
    sides = []
    n_left_out = 0
    for fold in CANONICAL_FOLDS:
        base, test = (
            _with_rows_of(parts[f"{fold}.{side}"], whole.users, whole.items, whole) for side in ("base", "test")
        )
        one, n_shared = _without_shared(base, test)
        sides.append(one)
        n_left_out += n_shared
    notes = [f"{n_left_out} pairs are on both sides of a canonical fold and are not judged."] if n_left_out else []
    return SplitDataset(whole, lambda: iter(sides), tuple(notes), n_left_out)


def _union(known: Vocabulary, other: Vocabulary) -> Vocabulary:
    new = [id_ for id_ in other.id_of if id_ not in known.row_of]
    return Vocabulary([*known.id_of, *new]) if new else known


def _with_rows_of(
    part: Interactions, users: Vocabulary, items: Vocabulary, scale: Interactions | None = None
) -> Interactions:
    """Return a dataset with the rows of other vocabularies, and the rating scale of another dataset if given."""
    scale = part if scale is None else scale
    return replace(
        part,
        users=users,
        items=items,
        user_rows=_rows(part, part.users, users)[part.user_rows],
        item_rows=_rows(part, part.items, items)[part.item_rows],
        rating_min=scale.rating_min,
        rating_max=scale.rating_max,
    )


def _rows(part: Interactions, own: Vocabulary, other: Vocabulary) -> Int32:
    try:
        return np.fromiter((other.row_of[id_] for id_ in own.id_of), dtype=np.int32, count=len(own))
    except KeyError as error:
        raise DataError(f"{part.report.source} has {error.args[0]!r}, which the whole dataset does not have.") from None


def _without_shared(train: Interactions, test: Interactions) -> tuple[Split, int]:
    """Return the split without test pairs that are on the training side too, and how many those were."""
    is_shared = is_member(pair_keys(test), np.sort(pair_keys(train)))
    if is_shared.all():
        raise DataError(
            f"{test.report.source} holds no pair that the training set does not hold, so it judges nothing."
        )
    return Split(train, test.take(np.flatnonzero(~is_shared))), int(np.count_nonzero(is_shared))
