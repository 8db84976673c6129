"""Bayesian matrix factorisation: not one set of factors that fits best, but the mean over many that fit well.

Ratings are mu + b_u + b_i + p_u . q_i plus normal noise; (p_u, b_u) and (q_i, b_i) are normally distributed with means
and covariances that are unknown too, under Gaussian-Wishart priors. Gibbs sampling draws each in turn given all others
(Salakhutdinov and Mnih, "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo", ICML 2008). There
is nothing to regularise or to stop early, which is why it beats point estimates that were tuned with great care
(Rendle, Zhang and Koren, "On the difficulty of evaluating baselines", 2019).

With `implicit`, the mean of a user's factors is moved by what the user has rated, whatever the rating was: by
|N(u)|^-1/2 times the sum over N(u) of a vector per item, which is drawn likewise (the idea of SVD++, in the form of
Simm et al., "Macau: scalable Bayesian factorization with high-dimensional side information using MCMC", 2017; a draw is
the solution of a perturbed linear system, found by conjugate gradients).

The mean of the samples' predictions is what is wanted, and it is a factor table again, see `averaging`.

Invariant: the result is a function of data, settings and generator alone. Each row is drawn by itself, from noise that
was drawn for all of them beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.models.snapshot import ModelSnapshot
from service.training.algorithms import hyperparameters
from service.training.algorithms.hyperparameters import Settings
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.factor_averaging import MeanProduct
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.interactions import Float32, Float64, Int32, Int64, Interactions, Progress

NAME: Final = "bayesian_mf"
_ROWS: Final = 256  # rows that a thread draws before it takes the next
# From where the last draw ended, so few come close enough: twice as many made no prediction better.
_CG_STEPS: Final = 5
# The priors' weight, in ratings or rows: of what little data cannot say, they say "as much as everything else".
_PRIOR_ROWS: Final = 2.0


@dataclass(frozen=True)
class BayesianMfConfig(Settings):
    """Settings of Bayesian matrix factorisation."""

    n_factors: Annotated[
        int,
        {"unit": "factors", "least": 1, "most": 512, "search": (8, 48)},
        "How many factors describe a user or an item.",
    ] = 16
    n_samples: Annotated[
        int, {"unit": "samples", "least": 1, "most": 100_000}, "How many samples are averaged; more are never worse."
    ] = 80
    n_burn_in: Annotated[
        int,
        {"unit": "samples", "least": 0, "most": 100_000},
        "How many samples are drawn before those, to forget the start.",
    ] = 20
    implicit: Annotated[bool, {}, "Whether what a user rated tells about the user, whatever the rating."] = True
    init_std_dev: Annotated[
        float,
        {"least": 1e-6, "most": 10},
        "Standard deviation of the first factors, in standard deviations of the ratings.",
    ] = 0.1


class Side(NamedTuple):
    """Ratings as one side sees them.

    Attributes:
        indptr: Int64 (n_rows + 1,), where each row's ratings begin.
        others: Int32 (n,), rows of the other side, ascending within a row.
        ratings: Float32 (n,), less the mean, in standard deviations.
    """

    indptr: Int64
    others: Int32
    ratings: Float32


class Hyper(NamedTuple):
    """How one side's rows are distributed: precision float64 (w, w) and mean float64 (w,)."""

    precision: Float64
    mean: Float64


def fit(data: Interactions, config: BayesianMfConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Sample, and average.

    Args:
        data: At least one rating.
        config: The settings.
        rng: Draws everything.
        progress: Told of the samples.

    Returns:
        The model; users and items without a rating in `data` have neither bias nor factors.
    """
    mean = float(data.ratings.mean(dtype=np.float64))
    scale = float(data.ratings.std(dtype=np.float64))
    by_user = history(data)
    by_item = by_user.T.tocsr()
    users, items = (_side(matrix, mean, scale) for matrix in (by_user, by_item))
    n_samples = config.n_burn_in + config.n_samples
    k = config.n_factors
    averaged = MeanProduct(len(data.users), len(data.items), k)
    biases = [np.zeros(len(ids)) for ids in (data.users, data.items)]
    progress("fit", 0, n_samples)
    with threads.one_blas_thread():
        chain = _Chain(users, items, config, rng)
        for n in range(n_samples):
            chain.advance()
            if n >= config.n_burn_in:
                averaged.add(chain.user_table[:, :k], chain.item_table[:, :k])
                biases[0] += chain.user_table[:, k]
                biases[1] += chain.item_table[:, k]
            progress("fit", n + 1, n_samples)
        factors = averaged.factors()
    tables = _centred(*factors, *(bias / config.n_samples for bias in biases), users=users, items=items)
    # A product is to be scaled once; where all ratings are the same, everything but the mean becomes 0.
    user_factors, item_factors, user_bias, item_bias = (tables[0], *(table * scale for table in tables[1:]))
    return assemble(
        data,
        algorithm=NAME,
        settings=hyperparameters.as_json(config),
        user_factors=np.ascontiguousarray(user_factors, dtype=np.float32),
        item_factors=np.ascontiguousarray(item_factors, dtype=np.float32),
        user_bias=user_bias.astype(np.float32),
        item_bias=item_bias.astype(np.float32),
        global_mean=mean,
    )


ALGORITHM: Final = Algorithm(BayesianMfConfig, fit)


class _Chain:
    """The sampler's state: tables of factors and, last, a bias, float32 (n, k + 1), and what rules them."""

    def __init__(self, users: Side, items: Side, config: BayesianMfConfig, rng: np.random.Generator) -> None:
        self._users, self._items, self._rng = users, items, rng
        self.user_table, self.item_table = (_first(side.indptr.size - 1, config, rng) for side in (users, items))
        self._noise_precision = 1.0
        self._link = _Link(users, items, config.n_factors + 1) if config.implicit else None

    def advance(self) -> None:
        """Draw everything once."""
        rng = self._rng
        hyper = drawn_hyper(self.item_table, rng)
        self._draw(self._items, self.item_table, self.user_table, hyper, None)
        shifts = None if self._link is None else self._link.shifts
        hyper = drawn_hyper(self.user_table if shifts is None else self.user_table - shifts, rng)
        self._draw(self._users, self.user_table, self.item_table, hyper, shifts)
        if self._link is not None:
            self._link.draw(self.user_table, hyper, rng)
        squared_error = self._squared_error()
        n = self._users.ratings.size
        self._noise_precision = rng.gamma((_PRIOR_ROWS + n) / 2) / ((_PRIOR_ROWS + squared_error) / 2)

    def _draw(self, side: Side, table: Float32, other: Float32, hyper: Hyper, shifts: Float32 | None) -> None:
        """Draw all rows of one side."""
        features = other.copy()
        features[:, -1] = 1.0
        offsets = np.ascontiguousarray(other[:, -1])
        noise = self._rng.standard_normal(table.shape, dtype=np.float32)
        # A row's prior, as the right side of its equations.
        middle = hyper.mean if shifts is None else shifts + hyper.mean
        prior = np.empty(table.shape, np.float32)
        prior[:] = middle @ hyper.precision

        def rows(start: int, stop: int) -> None:
            _draw_rows(
                start,
                stop,
                side.indptr,
                side.others,
                side.ratings,
                features,
                offsets,
                prior,
                hyper.precision,
                self._noise_precision,
                noise,
                table,
            )

        threads.run_in_blocks(rows, table.shape[0], _ROWS)

    def _squared_error(self) -> float:
        errors = np.zeros(self.user_table.shape[0])

        def rows(start: int, stop: int) -> None:
            _squared_errors(start, stop, *self._users, self.user_table, self.item_table, errors)

        threads.run_in_blocks(rows, errors.size, _ROWS)
        return float(errors.sum())


class _Link:
    """How what users have rated moves the means of their rows: shifts = F beta, F[u, i] = |N(u)|^-1/2 for i in N(u)."""

    def __init__(self, users: Side, items: Side, width: int) -> None:
        self._users, self._items = users, items
        counts = np.diff(users.indptr)
        self._scales = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
        self._ones = np.ones(items.indptr.size - 1, np.float32)
        self._beta = np.zeros((items.indptr.size - 1, width), np.float32)
        self._precision = 1.0
        self.shifts = np.zeros((counts.size, width), np.float32)

    def draw(self, user_table: Float32, hyper: Hyper, rng: np.random.Generator) -> None:
        """Draw beta given the users' rows, by solving (F'F + l) beta = F'(rows - mean + noise) + sqrt(l) noise."""
        spread = np.linalg.cholesky(np.linalg.inv(hyper.precision)).T.astype(np.float32)
        noisy = rng.standard_normal(user_table.shape, dtype=np.float32) @ spread
        noisy += user_table
        noisy -= hyper.mean.astype(np.float32)
        right = self._transposed(noisy)
        right += np.float32(np.sqrt(self._precision)) * (
            rng.standard_normal(self._beta.shape, dtype=np.float32) @ spread
        )
        _solve_by_conjugate_gradients(
            lambda x: self._transposed(self._times(x)) + np.float32(self._precision) * x, right, self._beta
        )
        self.shifts = self._times(self._beta)
        whitened = self._beta @ np.linalg.cholesky(hyper.precision).astype(np.float32)
        size = float(np.einsum("ij,ij->", whitened, whitened, dtype=np.float64))
        self._precision = rng.gamma((_PRIOR_ROWS + self._beta.size) / 2) / ((_PRIOR_ROWS + size) / 2)

    def _times(self, table: Float32) -> Float32:
        """F table: float32 (n_users, w)."""
        return _gathered(self._users, self._scales, self._ones, table)

    def _transposed(self, table: Float32) -> Float32:
        """F' table: float32 (n_items, w)."""
        return _gathered(self._items, self._ones, self._scales, table)


def drawn_hyper(table: NDArray[np.floating[Any]], rng: np.random.Generator) -> Hyper:
    """Draw how a table's rows are distributed, given the rows: Gaussian-Wishart, as Salakhutdinov and Mnih have it.

    Args:
        table: Float (n, w).
        rng: draws.
    """
    n, width = table.shape
    mean = table.mean(axis=0, dtype=np.float64)
    centred = table - mean.astype(table.dtype)
    scatter = (centred.T @ centred).astype(np.float64)
    weight = _PRIOR_ROWS + n
    inverse = np.eye(width) + scatter + (_PRIOR_ROWS * n / weight) * np.outer(mean, mean)
    root = np.linalg.cholesky(np.linalg.inv((inverse + inverse.T) / 2))
    # Bartlett's decomposition of a Wishart matrix.
    lower = np.tril(rng.standard_normal((width, width)), -1)
    lower[np.diag_indices(width)] = np.sqrt(rng.chisquare(width + n - np.arange(width)))
    root = root @ lower
    precision = root @ root.T
    deviation = np.linalg.solve(root.T, rng.standard_normal(width))
    return Hyper(precision, n / weight * mean + deviation / np.sqrt(weight))


def _side(matrix: csr_array, mean: float, scale: float) -> Side:
    # Where all ratings are the same, whatever is drawn is scaled to nothing at the end.
    ratings = ((matrix.data.astype(np.float64) - mean) / (scale or 1.0)).astype(np.float32)
    return Side(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False), ratings)


def _first(n: int, config: BayesianMfConfig, rng: np.random.Generator) -> Float32:
    table = rng.standard_normal((n, config.n_factors + 1), dtype=np.float32)
    table *= np.float32(config.init_std_dev)
    table[:, -1] = 0
    return table


def _gathered(side: Side, own: Float32, others: Float32, table: Float32) -> Float32:
    """Sum, for each row, scaled rows of the other side's table: float32 (n_rows, w)."""
    sums = np.empty((own.size, table.shape[1]), np.float32)

    def rows(start: int, stop: int) -> None:
        _gather_rows(start, stop, side.indptr, side.others, own, others, table, sums)

    threads.run_in_blocks(rows, own.size, _ROWS)
    return sums


def _solve_by_conjugate_gradients(apply: Callable[[Float32], Float32], right: Float32, solution: Float32) -> None:
    """Improve `solution`, float32 (n, w), of apply(solution) = right, each column by itself, in a few steps."""
    rest = right - apply(solution)
    direction = rest.copy()
    size = np.einsum("ij,ij->j", rest, rest, dtype=np.float64)
    for _ in range(_CG_STEPS):
        applied = apply(direction)
        along = np.einsum("ij,ij->j", direction, applied, dtype=np.float64)
        step = np.divide(size, along, out=np.zeros_like(size), where=along > 0).astype(np.float32)
        solution += step * direction
        rest -= step * applied
        before, size = size, np.einsum("ij,ij->j", rest, rest, dtype=np.float64)
        direction *= np.divide(size, before, out=np.zeros_like(size), where=before > 0).astype(np.float32)
        direction += rest


def _centred(
    user_factors: Float64, item_factors: Float64, user_bias: Float64, item_bias: Float64, *, users: Side, items: Side
) -> tuple[Float64, Float64, Float64, Float64]:
    """Move what all factors have in common into the biases, so that a bias alone is the level of a user or an item.

    No score of a known user and a known item changes. Rows without ratings become zero: an unknown user is then taken
    for an average one, whose predictions are the mean and the item's bias.
    """
    known_users, known_items = (np.diff(side.indptr) > 0 for side in (users, items))
    user_middle = user_factors[known_users].mean(axis=0)
    item_middle = item_factors[known_items].mean(axis=0)
    user_factors, item_bias = user_factors - user_middle, item_bias + item_factors @ user_middle
    item_factors, user_bias = item_factors - item_middle, user_bias + user_factors @ item_middle
    # The biases' own middles are one constant. Items keep theirs apart from it, so that they alone are levels.
    constant = item_bias[known_items].mean()
    item_bias, user_bias = item_bias - constant, user_bias + constant
    for table, known in ((user_factors, known_users), (user_bias, known_users)):
        table[~known] = 0
    for table, known in ((item_factors, known_items), (item_bias, known_items)):
        table[~known] = 0
    return user_factors, item_factors, user_bias, item_bias


@compiled
def _draw_rows(
    start: int,
    stop: int,
    indptr: Int64,
    others: Int32,
    ratings: Float32,
    features: Float32,
    offsets: Float32,
    prior: Float32,
    precision: Float64,
    noise_precision: float,
    noise: Float32,
    table: Float32,
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Draw rows start to stop of a table from their normal distributions given the ratings and the other side."""
    width = table.shape[1]
    products = np.empty((width, width), np.float32)
    upper = np.empty((width, width), np.float64)
    sums = np.empty(width, np.float32)
    x = np.empty(width, np.float64)
    for row in range(start, stop):
        products[:] = 0
        sums[:] = 0
        for n in range(indptr[row], indptr[row + 1]):
            other = others[n]
            rest = ratings[n] - offsets[other]
            for f in range(width):
                feature = features[other, f]
                sums[f] += feature * rest
                for g in range(width):
                    products[f, g] += feature * features[other, g]
        for f in range(width):
            x[f] = prior[row, f] + noise_precision * sums[f]
            for g in range(width):
                upper[f, g] = precision[f, g] + noise_precision * products[f, g]
        # Cholesky's factor U of the precision, U'U, and U'^-1 of the right side, column by column.
        for f in range(width):
            inverse = 1.0 / np.sqrt(upper[f, f])
            for g in range(f, width):
                upper[f, g] *= inverse
            x[f] *= inverse
            for g in range(f + 1, width):
                factor = upper[f, g]
                x[g] -= factor * x[f]
                for h in range(g, width):
                    upper[g, h] -= factor * upper[f, h]
        # U^-1 of noise of unit variance has the covariance of the row.
        for f in range(width - 1, -1, -1):
            value = x[f] + noise[row, f]
            for g in range(f + 1, width):
                value -= upper[f, g] * x[g]
            x[f] = value / upper[f, f]
        for f in range(width):
            table[row, f] = x[f]


@compiled
def _squared_errors(
    start: int,
    stop: int,
    indptr: Int64,
    others: Int32,
    ratings: Float32,
    table: Float32,
    other_table: Float32,
    errors: Float64,
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Add up the squared errors of rows start to stop."""
    k = table.shape[1] - 1
    for row in range(start, stop):
        total = 0.0
        for n in range(indptr[row], indptr[row + 1]):
            other = others[n]
            rest = float(ratings[n]) - table[row, k] - other_table[other, k]
            for f in range(k):
                rest -= float(table[row, f]) * other_table[other, f]
            total += rest * rest
        errors[row] = total


@compiled
def _gather_rows(
    start: int,
    stop: int,
    indptr: Int64,
    others: Int32,
    own: Float32,
    scales: Float32,
    table: Float32,
    sums: Float32,
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Write own[row] times the sum of scales[other] table[other] for rows start to stop."""
    width = table.shape[1]
    for row in range(start, stop):
        sums[row] = 0
        for n in range(indptr[row], indptr[row + 1]):
            other = others[n]
            scale = scales[other]
            for f in range(width):
                sums[row, f] += scale * table[other, f]
        for f in range(width):
            sums[row, f] *= own[row]
