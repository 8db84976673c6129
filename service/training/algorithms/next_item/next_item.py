"""Next-item models: what a user does next, from a decayed sum over what they did last.

A user is the sum of their last `window` interactions, each weighted by its recency. The weights from these inputs to
the next item are a ridge regression in closed form, learnt at every interaction of every user (M. Choi, J. Kim, J. Lee,
H. Shim and J. Lee, "Session-aware linear item-item models for session-based recommendation", WWW 2021), and kept as
lists of next items of each input, see `list_form`, or as factors, see `factor_form`. So a new interaction
changes the user's list by a few hundred additions.

The order of interactions is that of time; of equal times the later line of the source is the later interaction, and
without times the order is that of the source. docs/decisions/decayed-sum.md gives the reasons.

Two settings depend on the kind of data more than others: how far ahead a target may be, and whether pairs count
backwards, too. Unless they are set, they are chosen within the fit, see `validation`.

Invariant: the result depends on data, hyperparameters and generator alone, and on no number of threads or workers, nor
on whether the fit continues from a checkpoint.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from scipy.sparse import csr_array

from service.executors.executor import executor_in_use
from service.models.fold_in.settings import FoldIn
from service.models.history.weights import HistoryWeights
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights
from service.training.algorithms.kernels.next_item.item_sequences import Sequences, sequences
from service.training.algorithms.next_item import distributed_lists, factor_form, list_form
from service.training.algorithms.next_item.checkpoint import NextItemCheckpoint
from service.training.algorithms.next_item.distributed_validation import scores
from service.training.algorithms.next_item.factor_form import Factors
from service.training.algorithms.next_item.list_form import SumsCheckpoint
from service.training.algorithms.next_item.validation import Validation, hide_latest
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import WeightedHistory
from service.training.assembly import assemble, history_entries
from service.training.checkpoints.basis import BasisCheckpoint
from service.training.distributed.user_sums import folded_in
from service.training.interactions import Float64, Int64, Interactions, Progress

NAME: Final = "next_item"
# Pairs of (reverse, look_ahead) to choose from: dense data gains from looking ahead, sparse data from the reverse.
_CHOICES: Final = ((0.0, 0.4), (0.0, 0.0), (0.25, 0.0), (0.5, 0.0))
_STEPS: Final = len(_CHOICES) + 3
# Low rank suits dense data: below so many interactions an item, `auto` leaves factors out.
_DENSE_FROM: Final = 30
# The penalty of an item without interactions is that of one with so many.
_LEAST_COUNT: Final = 0.3
_LEAST_STEP: Final = 2.0**-120


@dataclass(frozen=True)
class NextItemConfig(WeightedHistory):
    """Hyperparameters of next-item models."""

    half_life: Annotated[
        float,
        {"unit": "interactions", "least": 0, "most": 1e6, "search": (0.5, 20, "log")},
        "Later interactions of a user after which a weight is halved; 0 for never.",
    ] = 2.0
    long_half_life: Annotated[
        float,
        {"unit": "interactions", "least": 0, "most": 1e6, "search": (10, 100, "log")},
        "The same of a second, fainter weight that lasts longer; 0 for never.",
    ] = 20.0
    long_weight: Annotated[
        float,
        {"least": 0, "most": 100, "search": (0.0, 1.0)},
        "The second weight in proportion to the first; 0 for none.",
    ] = 0.3
    window: Annotated[
        int,
        {"unit": "interactions", "least": 1, "most": 10_000, "search": (20, 200, "log")},
        "Latest interactions of a user that count.",
    ] = 50
    dislike_weight: Annotated[
        float,
        {"least": -10, "most": 10, "search": (-1, 1)},
        "Weight of a dislike or a dismissal in a user's sum; that of another rating is 1.",
    ] = 0.0
    reg: Annotated[
        float,
        {"least": 1e-6, "most": 1e6, "search": (0.2, 20, "log")},
        "Regularisation, relative to the weight of an average item's interactions.",
    ] = 2.0
    reg_exp: Annotated[
        float,
        {"least": 0, "most": 2, "search": (0.0, 1.0)},
        "Growth of regularisation with an item's interactions: 0 none, 1 linear.",
    ] = 0.5
    damping: Annotated[
        float,
        {"least": 0, "most": 2, "search": (0.0, 0.5)},
        "Power of an item's number of interactions by which its scores are divided.",
    ] = 0.1
    look_ahead: Annotated[
        float | None,
        {"least": 0, "most": 0.99, "search": (0.0, 0.6)},
        "Weight of a target one interaction further ahead, relative to the nearer; if none, chosen by validation.",
    ] = None
    reverse: Annotated[
        float | None,
        {"least": 0, "most": 1, "search": (0.0, 0.6)},
        "Weight of a pair of interactions counted backwards; if none, chosen by validation.",
    ] = None
    n_neighbours: Annotated[
        int, {"unit": "items", "least": 1, "most": 100_000}, "Next items kept of each item, the largest weights."
    ] = 200
    form: Annotated[
        str,
        {"choices": ("auto", "lists", "factors")},
        "Lists of next items, or factors; auto takes the better on validation, and tries factors on dense data alone.",
    ] = "auto"
    n_factors: Annotated[
        int,
        {"unit": "factors", "least": 1, "most": 8192, "search": (64, 512, "log")},
        "Factors per item, in that form.",
    ] = 256


def fit(data: Interactions, config: NextItemConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit a next-item model.

    Raises:
        TrainingDiverged: The regression has no solution in the available precision.
        RunError: A checkpoint cannot be written, or workers failed.
    """
    checkpoint = NextItemCheckpoint(data, config, rng)
    progress("fit", len(checkpoint.scores()), _STEPS)
    weights = history_weights(config, data)
    entries = history_entries(data)
    whole = sequences(entries, weights)
    chosen = _choose(whole, config, weights, rng, progress, checkpoint)
    progress("fit", _STEPS - 1, _STEPS)
    if chosen.form == "lists":
        lists = checkpoint.lists()
        if lists is None:
            lists = item_lists(whole, chosen, weights, checkpoint)
            checkpoint.keep_lists(lists)
        neighbourhood = Neighbourhood("items", "sum", "seen", lists)
        snapshot = assemble(data, NAME, chosen, neighbourhood=neighbourhood, fold_in=FoldIn("neighbour_sum", weights))
    else:
        factors = checkpoint.factors()
        if factors is None:
            factors = item_factors(whole, chosen, weights, rng, checkpoint.basis)
            checkpoint.keep_factors(factors)
        inputs, items = factors
        how = FoldIn("decayed_sum", weights)
        snapshot = assemble(
            data,
            NAME,
            chosen,
            user_factors=folded_in(entries, how, inputs),
            item_factors=items,
            input_factors=inputs,
            fold_in=how,
        )
    progress("fit", _STEPS, _STEPS)
    return snapshot


ALGORITHMS: Final = {NAME: Algorithm(NextItemConfig, fit, kind="ranking")}


def history_weights(config: NextItemConfig, data: Interactions) -> HistoryWeights:
    """Return how the interactions of a user are weighted."""
    return dataclasses.replace(
        config.history_weights(data, window=config.window),
        long_half_life=config.long_half_life or None,
        long_weight=config.long_weight,
    )


def item_lists(
    data: Sequences, config: NextItemConfig, weights: HistoryWeights, checkpoint: SumsCheckpoint | None = None
) -> csr_array:
    """Return the weights of each item's next items: float32 CSR (n_items, n_items), inputs by targets.

    Args:
        config: With values of look_ahead and reverse.
        checkpoint: Where the sums over pairs are kept.
    """
    return next(lists_of_each(data, [config], weights, checkpoint=checkpoint))


def lists_of_each(
    data: Sequences,
    configs: Sequence[NextItemConfig],
    weights: HistoryWeights,
    *,
    quick: bool = False,
    checkpoint: SumsCheckpoint | None = None,
) -> Iterator[csr_array]:
    """Yield the lists of each config, as `item_lists`; configs differ in look_ahead and reverse alone.

    Args:
        quick: See `list_form.fit`.
        checkpoint: For a single config.
    """
    counts, hows = data.counts, [_pair_weights(config) for config in configs]
    regression = penalties(counts, configs[0], weights), scales(counts, configs[0]), configs[0].n_neighbours
    executor = executor_in_use()
    if executor is not None:
        yield from distributed_lists.fit(executor, data, hows, *regression, quick=quick, checkpoint=checkpoint)
        return
    for how in hows:
        yield list_form.fit(data, how, *regression, quick=quick, checkpoint=checkpoint)


def item_factors(
    data: Sequences,
    config: NextItemConfig,
    weights: HistoryWeights,
    rng: np.random.Generator,
    checkpoint: BasisCheckpoint | None = None,
) -> Factors:
    """Return the factors of items as inputs and as targets.

    Args:
        config: With values of look_ahead and reverse.
        checkpoint: Where the steps of a fit are kept.
    """
    counts = data.counts
    inputs = factor_form.basis(data, config.n_factors, rng, checkpoint)
    return factor_form.fit(
        data, _pair_weights(config), penalties(counts, config, weights), scales(counts, config), inputs
    )


def _pair_weights(config: NextItemConfig) -> PairWeights:
    return PairWeights(config.window, config.long_weight, config.look_ahead or 0.0, config.reverse or 0.0)


def penalties(counts: Int64, config: NextItemConfig, weights: HistoryWeights) -> Float64:
    """Return the regularisation of each input, float64 (n_items,), given the number of interactions of each item."""
    recency = np.ones(config.window)
    weights.decay(recency, np.arange(config.window))
    mean = counts.sum() / np.count_nonzero(counts)
    relative = np.maximum(counts, _LEAST_COUNT) / mean
    found: Float64 = config.reg * float(recency @ recency) * mean * relative**config.reg_exp
    return found


def scales(counts: Int64, config: NextItemConfig) -> Float64:
    """Return the factor of each target's scores, float64 (n_items,)."""
    mean = counts.sum() / np.count_nonzero(counts)
    found: Float64 = (np.maximum(counts, 1) / mean) ** -config.damping
    return found


def _choose(
    whole: Sequences,
    config: NextItemConfig,
    weights: HistoryWeights,
    rng: np.random.Generator,
    progress: Progress,
    checkpoint: NextItemCheckpoint,
) -> NextItemConfig:
    """Return the config with all settings: those that are not set have the best value on the validation."""
    candidates = [
        dataclasses.replace(
            config,
            reverse=reverse if config.reverse is None else config.reverse,
            look_ahead=look_ahead if config.look_ahead is None else config.look_ahead,
        )
        for reverse, look_ahead in _CHOICES
    ]
    candidates = list(dict.fromkeys(candidates))
    dense = len(whole.items) >= _DENSE_FROM * np.count_nonzero(whole.counts)
    forms = (config.form,) if config.form != "auto" else ("lists", "factors") if dense else ("lists",)
    validation = hide_latest(whole, rng) if len(candidates) * len(forms) > 1 else None
    if validation is None:
        return dataclasses.replace(candidates[0], form=forms[0])
    found = checkpoint.scores()
    checkpoint.restore_generator()
    for value in _scores(validation, candidates[len(found) :], forms[0], weights, rng, checkpoint.basis):
        found.append(value)
        checkpoint.keep_scores(found)
        progress("fit", len(found), _STEPS)
    of_candidates = found[: len(candidates)]
    # The first of equal scores.
    best = dataclasses.replace(candidates[int(np.argmax(of_candidates))], form=forms[0])
    progress("fit", _STEPS - 2, _STEPS)
    if len(forms) == 1:
        return best
    if len(found) == len(candidates):
        found += _scores(validation, [best], forms[1], weights, rng, checkpoint.basis)
        checkpoint.keep_scores(found)
    return dataclasses.replace(best, form=forms[1]) if found[-1] > max(of_candidates) else best


def _scores(
    validation: Validation,
    candidates: Sequence[NextItemConfig],
    form: str,
    weights: HistoryWeights,
    rng: np.random.Generator,
    basis: BasisCheckpoint,
) -> Iterator[float]:
    """Fit candidates of a form to what is known, and yield the score of each on what is hidden."""
    if not candidates:
        return
    known = input_matrix(validation.known, weights)
    if form == "factors":
        for config in candidates:
            factors = item_factors(validation.known, config, weights, rng, basis)
            yield from scores(validation, _scores_of_factors, known, [factors])
        return
    lists = lists_of_each(validation.known, candidates, weights, quick=True)
    if executor_in_use() is None:
        for each in lists:
            yield from scores(validation, _scores_of_lists, known, [each])
    else:
        yield from scores(validation, _scores_of_lists, known, list(lists))


def _scores_of_lists(known: csr_array, lists: csr_array, users: Int64) -> Float64:
    found: Float64 = (known[users] @ lists).toarray().astype(np.float64, copy=False)
    return found


def _scores_of_factors(known: csr_array, factors: Factors, users: Int64) -> Float64:
    found: Float64 = (known[users] @ factors.inputs) @ factors.items.T.astype(np.float64)
    return found


def input_matrix(data: Sequences, weights: HistoryWeights) -> csr_array:
    """Return the weight of each user's interactions as a user's list is made: float64 CSR (n_users, n_items)."""
    lengths = np.diff(data.starts)
    ends = np.repeat(data.starts[1:], lengths)
    later = ends - 1 - np.arange(data.items.size)
    powers = []
    for steps in (data.short_steps, data.long_steps):
        # Sums of logarithms up to an entry; the floor stands for a step that is 0.
        sums = np.cumsum(np.log2(np.maximum(steps, _LEAST_STEP), dtype=np.float64))
        powers.append(np.exp2(sums[ends - 1] - sums))
    found = data.signals * (powers[0] + weights.long_weight * powers[1]) / (1 + weights.long_weight)
    if weights.window is not None:
        found[later >= weights.window] = 0
    return csr_array((found, data.items.copy(), data.starts), shape=(lengths.size, data.n_items))
