"""Biased matrix factorisation by stochastic gradient descent, known as SVD since the Netflix Prize.

A rating is predicted as mu + b_u + b_i + p_u . q_i, and for each rating r in turn, with e = r - prediction,

    b_u += lr_bu (e - reg_bu b_u)        p_u += lr_pu (e q_i - reg_pu p_u)
    b_i += lr_bi (e - reg_bi b_i)        q_i += lr_qi (e p_u - reg_qi q_i)

where both factor updates use the values before the step (S. Funk, "Netflix Update: Try This at Home", 2006; Koren, Bell
and Volinsky, "Matrix factorization techniques for recommender systems", Computer 42(8), 2009). Names and defaults of
the settings are those of scikit-surprise's SVD.

Invariant: the result is a function of data, settings and generator alone. Ratings are visited user by user (which keeps
p_u in the nearest cache) in an order drawn once, and sums are added in a fixed order, so that neither the width of a
processor's vectors nor threads change a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import TrainingDiverged
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import settings
from service.training.algorithms.compiled import compiled
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.settings import setting
from service.training.assembly import assemble
from service.training.interactions import Float32, Int32, Interactions, Progress

NAME: Final = "svd"
# Sums are kept in this many lanes: what vectors of 128 and 256 bits hold, and the order is ours on any processor.
LANES: Final = 8


@dataclass(frozen=True)
class SvdConfig:
    """Settings of SVD."""

    n_factors: int = setting(100, "How many factors describe a user or an item.", unit="factors", least=1, most=4096)
    n_epochs: int = setting(20, "How often every rating is visited.", unit="epochs", least=1, most=100_000)
    biased: bool = setting(
        default=True, doc="Whether there are a mean and biases, or factors alone (which is known as PMF)."
    )
    init_mean: float = setting(0.0, "Mean of the normal distribution that factors start from.", least=-100, most=100)
    init_std_dev: float = setting(0.1, "Standard deviation of that distribution.", least=0, most=100)
    lr_all: float = setting(0.005, "Learning rate of everything that has none of its own.", least=0, most=10)
    reg_all: float = setting(0.02, "Regularisation of everything that has none of its own.", least=0, most=1000)
    lr_bu: float | None = setting(None, "Learning rate of user biases; lr_all if none.", least=0, most=10)
    lr_bi: float | None = setting(None, "Learning rate of item biases; lr_all if none.", least=0, most=10)
    lr_pu: float | None = setting(None, "Learning rate of user factors; lr_all if none.", least=0, most=10)
    lr_qi: float | None = setting(None, "Learning rate of item factors; lr_all if none.", least=0, most=10)
    reg_bu: float | None = setting(None, "Regularisation of user biases; reg_all if none.", least=0, most=1000)
    reg_bi: float | None = setting(None, "Regularisation of item biases; reg_all if none.", least=0, most=1000)
    reg_pu: float | None = setting(None, "Regularisation of user factors; reg_all if none.", least=0, most=1000)
    reg_qi: float | None = setting(None, "Regularisation of item factors; reg_all if none.", least=0, most=1000)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: one is out of its bounds.
        """
        settings.check(self)

    def rates(self) -> Float32:
        """Return learning rates, then regularisations, of b_u, b_i, p_u and q_i: float32 (8,)."""
        parts = ("bu", "bi", "pu", "qi")
        rates = [getattr(self, f"lr_{part}") for part in parts]
        regularisations = [getattr(self, f"reg_{part}") for part in parts]
        return np.array(
            [self.lr_all if rate is None else rate for rate in rates]
            + [self.reg_all if term is None else term for term in regularisations],
            dtype=np.float32,
        )


@dataclass(eq=False)
class Tables:
    """What is being learnt: factors float32 (n_users, k) and (n_items, k), biases float32 (n_users,) and (n_items,)."""

    user_factors: Float32
    item_factors: Float32
    user_bias: Float32
    item_bias: Float32


def fit(data: Interactions, config: SvdConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit SVD.

    Args:
        data: at least one rating.
        config: the settings.
        rng: draws the order of the ratings and the first factors.
        progress: told of the epochs.

    Returns:
        The model; users and items without a rating in `data` have neither bias nor factors.

    Raises:
        TrainingDiverged: errors or factors are no longer finite.
    """
    order = visiting_order(data.user_rows, len(data.users), rng)
    users, items, ratings = data.user_rows[order], data.item_rows[order], data.ratings[order]
    del order
    tables = first_tables(data, config, rng)
    mean = np.float32(ratings.mean(dtype=np.float64) if config.biased else 0.0)
    rates = config.rates()
    padded = Tables(_padded(tables.user_factors), _padded(tables.item_factors), tables.user_bias, tables.item_bias)
    progress("fit", 0, config.n_epochs)
    for epoch in range(config.n_epochs):
        squared_error = _epoch(
            *(users, items, ratings, mean, padded.user_factors, padded.item_factors),
            *(padded.user_bias, padded.item_bias, rates, config.biased),
        )
        if not np.isfinite(squared_error):
            raise TrainingDiverged(_diverged(data, config, epoch + 1))
        progress("fit", epoch + 1, config.n_epochs)
    _forget_unseen(padded, users, items)
    k = config.n_factors
    factors = np.ascontiguousarray(padded.user_factors[:, :k]), np.ascontiguousarray(padded.item_factors[:, :k])
    # The last step of an epoch is in no prediction of it.
    if not all(np.isfinite(table).all() for table in (*factors, padded.user_bias, padded.item_bias)):
        raise TrainingDiverged(_diverged(data, config, config.n_epochs))
    return assemble(
        data,
        algorithm=NAME,
        settings=settings.as_json(config),
        user_factors=factors[0],
        item_factors=factors[1],
        user_bias=padded.user_bias,
        item_bias=padded.item_bias,
        global_mean=float(mean),
    )


ALGORITHM: Final = Algorithm(SvdConfig, fit)


def visiting_order(user_rows: Int32, n_users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the order in which ratings are visited: shuffled, then grouped by user in order of first appearance.

    This is scikit-surprise's order over a shuffled fold; it visits active users early.

    Args:
        user_rows: int32 (n,).
        n_users: how many users there are.
        rng: draws the order.

    Returns:
        int64 (n,), a permutation of the positions.
    """
    n = user_rows.size
    shuffled = rng.permutation(n)
    visitors = user_rows[shuffled]
    first_visit = np.zeros(n_users, dtype=np.int64)
    # Of several values for one place numpy keeps the last, so backwards the earliest visit stays.
    first_visit[visitors[::-1]] = np.arange(n - 1, -1, -1)
    return shuffled[np.argsort(first_visit[visitors], kind="stable")]


def first_tables(data: Interactions, config: SvdConfig, rng: np.random.Generator) -> Tables:
    """Draw the factors to start from; biases start at zero."""

    def drawn(n: int) -> Float32:
        factors = rng.standard_normal((n, config.n_factors), dtype=np.float32)
        factors *= np.float32(config.init_std_dev)
        factors += np.float32(config.init_mean)
        return factors

    n_users, n_items = len(data.users), len(data.items)
    return Tables(drawn(n_users), drawn(n_items), np.zeros(n_users, np.float32), np.zeros(n_items, np.float32))


@compiled
def _epoch(
    users: Int32,
    items: Int32,
    ratings: Float32,
    mean: np.float32,
    user_factors: Float32,
    item_factors: Float32,
    user_bias: Float32,
    item_bias: Float32,
    rates: Float32,
    biased: bool,  # noqa: FBT001  # numba kernels take their arguments by position
) -> float:  # pragma: no cover  # compiled; tests hold it to the reference
    """Visit every rating once; return the sum of squared errors before each step. Rows are padded to whole lanes."""
    lr_bu, lr_bi, lr_pu, lr_qi = rates[0], rates[1], rates[2], rates[3]
    reg_bu, reg_bi, reg_pu, reg_qi = rates[4], rates[5], rates[6], rates[7]
    width = user_factors.shape[1]
    lanes = np.zeros(LANES, dtype=np.float32)
    squared_error = 0.0
    for n in range(users.size):
        u, i = users[n], items[n]
        for lane in range(LANES):
            lanes[lane] = np.float32(0)
        for start in range(0, width, LANES):
            for lane in range(LANES):
                lanes[lane] += user_factors[u, start + lane] * item_factors[i, start + lane]
        product = np.float32(0)
        for lane in range(LANES):
            product += lanes[lane]
        error = ratings[n] - (mean + user_bias[u] + item_bias[i] + product)
        squared_error += error * error
        if biased:
            user_bias[u] += lr_bu * (error - reg_bu * user_bias[u])
            item_bias[i] += lr_bi * (error - reg_bi * item_bias[i])
        for f in range(width):
            p, q = user_factors[u, f], item_factors[i, f]
            user_factors[u, f] = p + lr_pu * (error * q - reg_pu * p)
            item_factors[i, f] = q + lr_qi * (error * p - reg_qi * q)
    return squared_error


def _padded(factors: Float32) -> Float32:
    """Return the factors with columns of zeros up to whole lanes, in C order; zeros stay zero and add nothing."""
    n, k = factors.shape
    padded = np.zeros((n, -(-k // LANES) * LANES), dtype=np.float32)
    padded[:, :k] = factors
    return padded


def _forget_unseen(tables: Tables, users: Int32, items: Int32) -> None:
    """Zero what nothing was learnt about, so that predictions rest on what is known."""
    tables.user_factors[np.bincount(users, minlength=tables.user_bias.size) == 0] = 0
    tables.item_factors[np.bincount(items, minlength=tables.item_bias.size) == 0] = 0


def _diverged(data: Interactions, config: SvdConfig, epoch: int) -> str:
    named = {name: value for name, value in settings.as_json(config).items() if name.startswith(("lr_", "init_"))}
    culprits = ", ".join(f"{name}={value}" for name, value in named.items() if value is not None)
    return (
        f"{NAME} diverged in epoch {epoch} of {config.n_epochs} on ratings from {data.rating_min:g} to "
        f"{data.rating_max:g} with {culprits}: lower the learning rates, or scale the ratings down"
    )
