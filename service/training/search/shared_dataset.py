"""A dataset and its splits in a folder, so that several processes map one copy.

Invariant: `SharedDataset` has the rows, values, ids, attributes and splits that `write` was given, in the same order.
The report on reading is left out, because no fit uses it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.models.vocabulary import Vocabulary
from service.training.evaluation.splits import Positions
from service.training.interactions import Interactions, ItemCatalogue, ReadReport, UserCatalogue

_COLUMNS: Final = ("user_rows", "item_rows", "ratings", "timestamps", "types")
_SCALE: Final = "scale.json"
_ATTRIBUTES: Final = "attributes.json"
_TRAIN, _TEST = 1, 2


class SharedDataset:
    """A dataset in a folder that `write` filled, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        scale = json.loads((folder / _SCALE).read_text(encoding="utf-8"))
        self.n_splits: Final[int] = scale.pop("n_splits")
        present = [name for name in _COLUMNS if (folder / f"{name}.npy").exists()]
        columns = {name: self._map(name) for name in present}
        attributes = orjson.loads((folder / _ATTRIBUTES).read_bytes())
        self.data: Final = Interactions(
            users=self._vocabulary("users"),
            items=self._vocabulary("items"),
            report=ReadReport(source=""),
            catalogue=ItemCatalogue({}, attributes["items"]),
            user_catalogue=UserCatalogue(attributes["users"]),
            **{"timestamps": None, **columns, **scale},
        )

    def split(self, index: int) -> tuple[Interactions, Interactions]:
        """Return (train, test) of a split."""
        sides = self._map(f"split-{index}")
        train, test = np.flatnonzero(sides == _TRAIN), np.flatnonzero(sides == _TEST)
        return self.data.take(train), self.data.take(test)

    def _map(self, name: str) -> NDArray[Any]:
        # np.asarray drops the memmap type, for which numba would compile the kernels again.
        return np.asarray(np.load(self._folder / f"{name}.npy", mmap_mode="r"))

    def _vocabulary(self, name: str) -> Vocabulary:
        return Vocabulary.from_arrays(self._map(f"{name}-bytes"), self._map(f"{name}-offsets"))


def write(folder: Path, data: Interactions, splits: Sequence[tuple[Positions, Positions]]) -> None:
    """Write a dataset and its splits, disjoint (train, test) positions, each ascending, into an empty folder."""
    for name in _COLUMNS:
        column: NDArray[Any] | None = getattr(data, name)
        if column is not None:
            np.save(folder / f"{name}.npy", column)
    for name, vocabulary in (("users", data.users), ("items", data.items)):
        encoded, offsets = vocabulary.to_arrays()
        np.save(folder / f"{name}-bytes.npy", encoded)
        np.save(folder / f"{name}-offsets.npy", offsets)
    attributes = {"items": data.catalogue.attributes, "users": data.user_catalogue.attributes}
    (folder / _ATTRIBUTES).write_bytes(orjson.dumps(attributes))
    for index, (train, test) in enumerate(splits):
        sides = np.zeros(len(data), dtype=np.uint8)
        sides[train], sides[test] = _TRAIN, _TEST
        np.save(folder / f"split-{index}.npy", sides)
    scale = {name: getattr(data, name) for name in ("rating_min", "rating_max", "fingerprint")}
    (folder / _SCALE).write_text(json.dumps({"n_splits": len(splits), **scale}), encoding="utf-8")
