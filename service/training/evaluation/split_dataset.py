"""A set of interactions, cut into what models learn from and what they are judged by.

Invariants: the two sides of a split are over the same users and items, no pair is on both, and neither is empty. The
splits are a function of the data and the protocol, the same each time they are made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from service.errors import DataError, UsageError
from service.models.vocabulary import Vocabulary
from service.training.data import datasets
from service.training.data.data_request import DataRequest, as_request
from service.training.evaluation import splits
from service.training.evaluation.evaluation_protocol import CANONICAL_FOLDS, TIME_SPLITS, EvaluationProtocol
from service.training.evaluation.leakage import is_member, pairs
from service.training.evaluation.splits import Positions
from service.training.interactions import Int32, Interactions, Progress, no_progress


class Split(NamedTuple):
    """The two sides of one split, over the same users and items."""

    train: Interactions
    test: Interactions


@dataclass(frozen=True, eq=False)
class SplitDataset:
    """A set of interactions, cut.

    Attributes:
        data: The whole set, or the training side where the test side was given apart.
        splits: Makes the splits, one after the other, the same each time.
        notes: What the reader of the result should know about it, one sentence each.
        n_left_out: Held-out interactions left out because their pair is on the training side too.
    """

    data: Interactions
    splits: Callable[[], Iterator[Split]]
    notes: tuple[str, ...] = ()
    n_left_out: int = 0


def read(
    data: str | DataRequest,
    protocol: EvaluationProtocol,
    *,
    test: str | DataRequest | None = None,
    progress: Progress = no_progress,
    prepare: Callable[[str | DataRequest, Interactions], Interactions] = lambda _, data: data,
) -> tuple[SplitDataset, list[Interactions]]:
    """Read what a protocol needs and cut it.

    Args:
        data: What to read, see `datasets.read`.
        protocol: How to cut it.
        test: The test set of the split "given", in any format of `data`.
        progress: Told of the bytes read.
        prepare: (source, set) -> what is to be used of the set, such as its ratings on a declared scale.

    Returns:
        The cut, and the sets that were read, for their reports.

    Raises:
        DataError: A set is refused, or there is nothing to judge by.
        UsageError: The protocol does not fit the data.
    """
    if (protocol.split == "given") != (test is not None):
        raise UsageError("a test set is given with the split 'given', and with no other")
    whole = prepare(data, datasets.read(data, progress))
    if test is not None:
        judged = prepare(test, datasets.read(test, progress))
        return with_test_set(whole, judged), [whole, judged]
    if protocol.split == "canonical":
        (path_text, *_) = as_request(data).sources
        folder = Path(path_text).expanduser()
        missing = [name for name in _canonical_names() if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{data} holds no {missing[0]}: the split 'canonical' is that of the MovieLens 100K directory"
            )
        parts = {name: prepare(data, datasets.read(str(folder / name), progress)) for name in _canonical_names()}
        return with_canonical_folds(whole, parts), [whole, *parts.values()]
    return split(whole, protocol), [whole]


def split_positions(data: Interactions, protocol: EvaluationProtocol) -> Iterator[tuple[Positions, Positions]]:
    """SplitDataset a set by position.

    Args:
        data: The interactions.
        protocol: With a split other than "canonical" and "given".

    Yields:
        (train, test) of each split, int64, ascending.

    Raises:
        UsageError: The set cannot be cut so.
    """
    n, split, rng = len(data), protocol.split, np.random.default_rng(protocol.seeds().cut)
    if split == "folds":
        if protocol.folds > n:
            raise UsageError(f"{n} ratings cannot be cut into {protocol.folds} folds, none of them empty")
        yield from splits.k_fold(n, protocol.folds, rng)
        return
    if split in TIME_SPLITS and data.timestamps is None:
        raise UsageError(f"the split {split!r} needs times, and {data.report.source} has none")
    # Where there are no times, which interaction of a user is the last is drawn.
    order = rng.permutation(n) if data.timestamps is None else data.timestamps
    if split == "leave-one-out":
        train, test = splits.leave_one_out(data.user_rows, order)
    elif split == "time":
        train, test = splits.youngest(order, protocol.test_share)
    else:
        train, test = splits.youngest_of_users(data.user_rows, order, protocol.test_share)
    if not train.size or not test.size:
        raise UsageError(f"{n} ratings are too few to be cut by the split {split!r}")
    yield train, test


def split(data: Interactions, protocol: EvaluationProtocol) -> SplitDataset:
    """SplitDataset a set by its own users, items and times; see `positions`."""
    notes = []
    if protocol.split == "leave-one-out" and data.timestamps is None:
        notes.append("Without times the interaction of each user that is held out is a random one.")

    def sides() -> Iterator[Split]:
        for train, test in split_positions(data, protocol):
            yield Split(data.take(train), data.take(test))

    return SplitDataset(data, sides, tuple(notes))


def with_test_set(train: Interactions, test: Interactions) -> SplitDataset:
    """Judge by a set of its own.

    Users and items that only the test set names get rows after those of the training set, so that they are predicted as
    a model predicts what it never saw. A pair that the training set has too is left out of the test set.

    Args:
        train: The training set.
        test: The test set.

    Raises:
        DataError: Nothing is left to judge by.
    """
    users, items = _union(train.users, test.users), _union(train.items, test.items)
    n_new_users, n_new_items = len(users) - len(train.users), len(items) - len(train.items)
    split, n_left_out = _apart(_onto(train, users, items), _onto(test, users, items))
    notes = []
    if n_new_users or n_new_items:
        notes.append(
            f"The test set names {n_new_users} users and {n_new_items} items that the training set does not; "
            "they count, and the models know nothing of them."
        )
    if n_left_out:
        notes.append(f"{n_left_out} pairs of the test set are in the training set too and are not judged.")
    return SplitDataset(split.train, lambda: iter([split]), tuple(notes), n_left_out)


def with_canonical_folds(whole: Interactions, parts: dict[str, Interactions]) -> SplitDataset:
    """SplitDataset MovieLens 100K by the files of its publishers.

    Args:
        whole: `u.data`.
        parts: What `u1.base`, `u1.test` and so on hold, by name.

    Raises:
        DataError: A part names somebody whom the whole does not, or nothing is left to judge by.
    """
    sides = []
    n_left_out = 0
    for name in CANONICAL_FOLDS:
        base, test = (_onto(parts[f"{name}.{side}"], whole.users, whole.items, whole) for side in ("base", "test"))
        split, n_doubled = _apart(base, test)
        sides.append(split)
        n_left_out += n_doubled
    notes = [f"{n_left_out} pairs are on both sides of a canonical fold and are not judged."] if n_left_out else []
    return SplitDataset(whole, lambda: iter(sides), tuple(notes), n_left_out)


def _canonical_names() -> list[str]:
    return [f"{name}.{side}" for name in CANONICAL_FOLDS for side in ("base", "test")]


def _union(known: Vocabulary, other: Vocabulary) -> Vocabulary:
    new = [id_ for id_ in other.id_of if id_ not in known.row_of]
    return Vocabulary([*known.id_of, *new]) if new else known


def _onto(part: Interactions, users: Vocabulary, items: Vocabulary, scale: Interactions | None = None) -> Interactions:
    """Return a set with its rows those of other vocabularies, and with the rating scale of another set if given."""
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
        raise DataError(f"{part.report.source} names {error.args[0]!r}, which the whole set does not") from None


def _apart(train: Interactions, test: Interactions) -> tuple[Split, int]:
    """Return the two sides without what the test side shares with the other, and how much that was."""
    is_shared = is_member(pairs(test), np.sort(pairs(train)))
    if is_shared.all():
        raise DataError(f"{test.report.source} holds no pair that the training set does not hold, so it judges nothing")
    return Split(train, test.take(np.flatnonzero(~is_shared))), int(np.count_nonzero(is_shared))
