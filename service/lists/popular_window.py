"""What is popular within a window of time, such as the last 7 days.

The window ends with the latest interaction that is known, of training or live, so that it is not empty on data that lie
back. Items without an interaction in it follow in the order of overall popularity.
"""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.snapshot import ModelSnapshot

WINDOW_PATTERN: Final = r"^[1-9][0-9]{0,3}[mhd]$"
WINDOW_RULE: Final = "must be a number and a unit, such as 30m, 12h or 7d"
_UNITS_S: Final = {"m": 60, "h": 3600, "d": 86400}
_WINDOW: Final = re.compile(WINDOW_PATTERN)


def window_s(text: str) -> int | None:
    """Return the seconds of a text such as `7d`; None if it is not one."""
    return int(text[:-1]) * _UNITS_S[text[-1]] if _WINDOW.fullmatch(text) else None


def training_end_s(snapshot: ModelSnapshot) -> int | None:
    """Return the time of the latest training interaction, Unix seconds; None without times."""
    times_s = snapshot.history_times
    return None if times_s is None or not times_s.size else int(times_s.max())


def training_counts(snapshot: ModelSnapshot, since_s: float) -> NDArray[np.int64]:
    """Count the training interactions of each item from a time on: int64 (n_items,); all of them without times."""
    rows, times_s = snapshot.history.indices, snapshot.history_times
    chosen = rows if times_s is None else rows[times_s >= since_s]
    return np.bincount(chosen, minlength=len(snapshot.items))
