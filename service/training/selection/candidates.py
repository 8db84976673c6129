"""The candidates of `auto`, in the order in which they are fitted: what costs least and gains most comes first."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple

from service.training.algorithms.kernels.compiled import is_kept
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.interactions import Interactions

# The name that stands for the choice among the candidates.
AUTO: Final = "auto"
# The model that all others must beat, and the one that is served where none does.
BASELINE: Final = "popularity"


class Candidate(NamedTuple):
    """An algorithm that `auto` may choose."""

    name: str  # in the registry, or a preset
    settings: tuple[str, ...] = ()  # "name=value" texts
    # The candidate is chosen only if it is better than every other by this factor: what serves a request from factors
    # or from short lists of neighbours is preferred to a matrix of items by items.
    least_gain: float = 1.0
    # Seconds of one core for n_items³; for a fit that is mostly one step, whose cost cannot be seen from its progress.
    cubic_s: float = 0.0
    # The largest kernel as "module:function", and the seconds that compiling all of the candidate's takes: that, too,
    # is one step. It is due once for each installation.
    kernel: str = ""
    compile_s: float = 0.0
    # Whether it differs from the candidate before only where the data has times.
    is_of_times: bool = False
    # Whether it takes over what `RECENCY_PROBES` found out: whether a user's latest interactions say more.
    follows_recency: bool = False

    @property
    def label(self) -> str:
        """The name with its settings, unique among the candidates."""
        return " ".join((self.name, *self.settings))

    def configured(self) -> ConfiguredAlgorithm:
        """Return the algorithm with its settings."""
        return ConfiguredAlgorithm.parse(self.name, self.settings)

    def estimated_s(self, data: Interactions) -> float:
        """Return what the fit needs at least, in seconds; 0 if that is only known from its progress."""
        return self.cubic_s * float(len(data.items)) ** 3 + (0.0 if self.is_compiled() else self.compile_s)

    def is_compiled(self) -> bool:
        """Whether the kernels need not be compiled."""
        if not self.kernel:
            return True
        module, _, function = self.kernel.partition(":")
        return is_kept(getattr(import_module(f"{_ALGORITHMS}.{module}"), function))


_ALGORITHMS: Final = "service.training.algorithms"

_NO_DECAY: Final = "half_life=0"
# A cheap candidate with its own half-life, and without one.
RECENCY_PROBES: Final = (Candidate("pure_svd"), Candidate("pure_svd", (_NO_DECAY,), is_of_times=True))

CANDIDATES: Final = (
    Candidate(BASELINE),
    Candidate(BASELINE, ("window_days=7",), is_of_times=True),
    Candidate(BASELINE, ("window_days=30",), is_of_times=True),
    *RECENCY_PROBES,
    Candidate("next_item", kernel="kernels.next_item.decayed_pairs:add_pairs", compile_s=3.0, follows_recency=True),
    Candidate(
        "ease", least_gain=1.05, cubic_s=3e-11, kernel="ease.ease:_count_halves", compile_s=1.5, follows_recency=True
    ),
    Candidate("ials", kernel="kernels.sparse.ridge:solve_rows", compile_s=8.0, follows_recency=True),
)


def adapted(candidate: Candidate, ndcg_of: Mapping[str, float], *, has_times: bool) -> Candidate:
    """Return a candidate without a half-life if that was better for the probes, or if nothing says what is recent.

    Args:
        ndcg_of: NDCG@10 by label of the candidates so far that were measured.
        has_times: Whether the data has times.
    """
    with_decay, without = (ndcg_of.get(probe.label) for probe in RECENCY_PROBES)
    is_lasting = with_decay is not None and without is not None and without > with_decay
    if not candidate.follows_recency or (has_times and not is_lasting):
        return candidate
    return candidate._replace(settings=(*candidate.settings, _NO_DECAY))
