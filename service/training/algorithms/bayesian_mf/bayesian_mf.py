"""Bayesian matrix factorisation: the mean prediction of many samples of factors instead of one best fit.

Ratings are mu + b_u + b_i + p_u . q_i plus normal noise; (p_u, b_u) and (q_i, b_i) are normally distributed with
unknown means and covariances under Gaussian-Wishart priors. Gibbs sampling draws each given all others (Salakhutdinov
and Mnih, "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo", ICML 2008). It needs no
regularisation and no early stopping, and beats carefully tuned point estimates (Rendle, Zhang and Koren, "On the
difficulty of evaluating baselines", 2019). With `implicit`, the mean of a user's factors is shifted by the items that
the user rated (`link`), the idea of SVD++.

The mean of the samples' predictions is again a factor table (`kernels.factors.averaging`).
tests/reference/bayesian_mf.py holds the slow equivalents of the draws.

Invariant: the result depends on data, hyperparameters and generator alone. Each row is drawn independently, from noise
that is drawn for all rows beforehand.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.bayesian_mf.draws import (
    BLOCK_ROWS,
    PRIOR_ROWS,
    RowPrior,
    SideRatings,
    draw_prior,
    draw_rows,
    side_ratings,
    squared_errors,
)
from service.training.algorithms.bayesian_mf.link import ImplicitLink
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.factors.averaging import MeanProduct
from service.training.algorithms.rating_fold_in import AS_RATED
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float32, Float64, Interactions, Progress

NAME: Final = "bayesian_mf"
# Added to the variances of standardised factors.
_LEAST_VARIANCE: Final = 1e-6


@dataclass(frozen=True)
class BayesianMfConfig(Hyperparameters):
    """Hyperparameters of Bayesian matrix factorisation."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 512, "search": (8, 48)}, "Factors per user and item."
    ] = 16
    n_samples: Annotated[
        int, {"unit": "samples", "least": 1, "most": 100_000}, "Samples to average; more are never worse."
    ] = 80
    n_burn_in: Annotated[int, {"unit": "samples", "least": 0, "most": 100_000}, "Samples to discard first."] = 20
    implicit: Annotated[bool, {}, "Whether to learn from which items a user rated, whatever the ratings."] = True
    init_std_dev: Annotated[
        float,
        {"least": 1e-6, "most": 10},
        "Standard deviation of the initial factors, relative to that of the ratings.",
    ] = 0.1


def fit(data: Interactions, config: BayesianMfConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Draw samples, and average their predictions."""
    mean = float(data.ratings.mean(dtype=np.float64))
    scale = float(data.ratings.std(dtype=np.float64))
    by_user = history(data)
    by_item = by_user.T.tocsr()
    users, items = (side_ratings(matrix, mean, scale) for matrix in (by_user, by_item))
    n_samples = config.n_burn_in + config.n_samples
    k = config.n_factors
    averaged = MeanProduct(len(data.users), len(data.items), k)
    noise = 0.0
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
                noise += 1 / chain.noise_precision
            progress("fit", n + 1, n_samples)
        factors = averaged.factors()
    tables = _centred(*factors, *(bias / config.n_samples for bias in biases), users=users, items=items)
    noise /= config.n_samples
    # One side is scaled, because products are; if all ratings are equal, everything but the mean becomes 0.
    user_factors, item_factors, user_bias, item_bias = (tables[0], *(table * scale for table in tables[1:]))
    return assemble(
        data,
        NAME,
        config,
        user_factors=np.ascontiguousarray(user_factors, dtype=np.float32),
        item_factors=np.ascontiguousarray(item_factors, dtype=np.float32),
        user_bias=user_bias.astype(np.float32),
        item_bias=item_bias.astype(np.float32),
        global_mean=mean,
        **_fold_in(user_factors, user_bias, is_known=np.diff(by_user.indptr) > 0, noise=noise * scale**2),
    )


ALGORITHMS: Final = {NAME: Algorithm(BayesianMfConfig, fit)}


class _Chain:
    """The state of the sampler: the precision of the noise, and tables of factors and, in the last column, biases.

    Tables are float32 (n, k + 1).
    """

    def __init__(
        self, users: SideRatings, items: SideRatings, config: BayesianMfConfig, rng: np.random.Generator
    ) -> None:
        self._users, self._items, self._rng = users, items, rng
        self.user_table, self.item_table = (_first_table(side.indptr.size - 1, config, rng) for side in (users, items))
        self.noise_precision = 1.0
        self._link = ImplicitLink(users, items, config.n_factors + 1) if config.implicit else None

    def advance(self) -> None:
        """Draw the next sample of all tables, priors and precisions."""
        rng = self._rng
        prior = draw_prior(self.item_table, rng)
        self._draw(self._items, self.item_table, self.user_table, prior, None)
        shifts = None if self._link is None else self._link.shifts
        prior = draw_prior(self.user_table if shifts is None else self.user_table - shifts, rng)
        self._draw(self._users, self.user_table, self.item_table, prior, shifts)
        if self._link is not None:
            self._link.draw(self.user_table, prior, rng)
        squared_error = self._squared_error()
        n = self._users.ratings.size
        self.noise_precision = rng.gamma((PRIOR_ROWS + n) / 2) / ((PRIOR_ROWS + squared_error) / 2)

    def _draw(self, side: SideRatings, table: Float32, other: Float32, prior: RowPrior, shifts: Float32 | None) -> None:
        """Draw all rows of one side; `shifts`, float32 like `table`, are added to the mean of the prior."""
        features = other.copy()
        features[:, -1] = 1.0
        offsets = np.ascontiguousarray(other[:, -1])
        noise = self._rng.standard_normal(table.shape, dtype=np.float32)
        means = prior.mean if shifts is None else shifts + prior.mean
        right_side = np.empty(table.shape, np.float32)
        right_side[:] = means @ prior.precision

        def rows(start: int, stop: int) -> None:
            draw_rows(
                *(start, stop, side, features, offsets, right_side),
                *(prior.precision, self.noise_precision, noise, table),
            )

        threads.run_in_blocks(rows, table.shape[0], BLOCK_ROWS)

    def _squared_error(self) -> float:
        errors = np.zeros(self.user_table.shape[0])

        def rows(start: int, stop: int) -> None:
            squared_errors(start, stop, self._users, self.user_table, self.item_table, errors)

        threads.run_in_blocks(rows, errors.size, BLOCK_ROWS)
        return float(errors.sum())


def _fold_in(user_factors: Float64, user_bias: Float64, *, is_known: NDArray[np.bool_], noise: float) -> dict[str, Any]:
    """Return the fold-in and its precision, as `assemble` takes them.

    The prior of a new user is the normal distribution of the known users' factors and biases, so that the fold-in is
    the mean of the posterior given the ratings and their noise, a variance.
    """
    known = np.column_stack([user_factors, user_bias])[is_known]
    mean_bias = float(known[:, -1].mean())
    with threads.one_blas_thread():
        covariance = np.cov(known.T, bias=True)
    spread = np.sqrt(covariance.diagonal())
    spread[spread == 0] = 1
    correlation = covariance / spread / spread[:, np.newaxis]
    # Where users are few, or do not differ, the covariance has no inverse.
    correlation.flat[:: len(correlation) + 1] += _LEAST_VARIANCE
    with threads.one_blas_thread():
        precision = (noise or 1.0) * np.linalg.inv(correlation) / spread / spread[:, np.newaxis]
    regularisation = dict.fromkeys(("reg_factors", "reg_factors_fixed", "reg_bias", "reg_bias_fixed"), 0.0)
    how = FoldIn("rating_ridge", AS_RATED, regularisation | {"biased": 1.0, "mean_bias": mean_bias})
    return {"fold_in": how, "fold_in_precision": (precision + precision.T) / 2}


def _first_table(n: int, config: BayesianMfConfig, rng: np.random.Generator) -> Float32:
    table = rng.standard_normal((n, config.n_factors + 1), dtype=np.float32)
    table *= np.float32(config.init_std_dev)
    table[:, -1] = 0
    return table


def _centred(
    user_factors: Float64,
    item_factors: Float64,
    user_bias: Float64,
    item_bias: Float64,
    *,
    users: SideRatings,
    items: SideRatings,
) -> tuple[Float64, Float64, Float64, Float64]:
    """Move the means of factors into the biases, so that a bias alone is the baseline of a user or an item.

    Scores of rated users and items do not change. Unrated rows become 0, so that an unknown user gets the predictions
    of an average one: the mean and the item's bias.
    """
    known_users, known_items = (np.diff(side.indptr) > 0 for side in (users, items))
    user_mean = user_factors[known_users].mean(axis=0)
    item_mean = item_factors[known_items].mean(axis=0)
    user_factors, item_bias = user_factors - user_mean, item_bias + item_factors @ user_mean
    item_factors, user_bias = item_factors - item_mean, user_bias + user_factors @ item_mean
    # The mean of the item biases moves to the users, so that item biases are centred.
    constant = item_bias[known_items].mean()
    item_bias, user_bias = item_bias - constant, user_bias + constant
    for table, known in ((user_factors, known_users), (user_bias, known_users)):
        table[~known] = 0
    for table, known in ((item_factors, known_items), (item_bias, known_items)):
        table[~known] = 0
    return user_factors, item_factors, user_bias, item_bias
