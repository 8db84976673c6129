"""The learning curve of a fit: loss and validation by epoch, and which epoch is kept.

Invariant: the kept epoch is the first one with the best validation; without a validation, the last one.
"""

from dataclasses import dataclass, field
from typing import Any, Final

# A manifest holds the curve. Of a longer one every nth epoch is in it, the kept one and the last one.
_MOST_POINTS: Final = 500


@dataclass
class LearningCurve:
    """What the epochs of one call of `TorchRun.train` measured.

    Attributes:
        measure: The name of the validation; None without one.
        larger_is_better: Of the validation.
        losses: The mean loss of each epoch.
        values: The validation after each epoch; empty without one.
    """

    measure: str | None = None
    larger_is_better: bool = True
    losses: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The index of the kept epoch; -1 before the first."""
        if not self.values:
            return len(self.losses) - 1
        extreme = max(self.values) if self.larger_is_better else min(self.values)
        return self.values.index(extreme)

    @property
    def latest_is_best(self) -> bool:
        """Whether the latest epoch is the one to keep."""
        return self.best == len(self.losses) - 1

    def has_stalled(self, patience: int) -> bool:
        """Whether the last `patience` epochs, if more than 0, brought no better validation."""
        return bool(patience and self.values) and len(self.values) - 1 - self.best >= patience

    def as_json(self) -> list[dict[str, Any]]:
        """Return a point per epoch: `epoch` from 1, `loss`, the validation under its name, and whether it is `kept`.

        Of more than 500 epochs only some are returned.
        """
        step = -(-len(self.losses) // _MOST_POINTS) or 1
        shown = {*range(0, len(self.losses), step), self.best, len(self.losses) - 1}
        return [
            {"epoch": index + 1, "loss": loss}
            | ({self.measure: self.values[index]} if self.measure else {})
            | {"kept": index == self.best}
            for index, loss in enumerate(self.losses)
            if index in shown
        ]
