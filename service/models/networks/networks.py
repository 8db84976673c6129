"""The networks of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from service.models.features.feature_encoder import FeatureEncoder
from service.models.networks.network import ItemTower, Network, Ranker, UserTower

# Names in a manifest, and of the files of a version.
NAMES: Final = ("user_tower", "item_tower", "ranker")


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a model.

    Attributes:
        user_tower: Computes users.
        item_tower: Computes new items; None if the model learnt nothing from attributes of items.
        ranker: Ranks the candidates of a list; None if the product of factors does.
        features: Computes the categories of users and items that the towers read; None if they read none.
        onnx: By name of a network: the same as an ONNX file, for other languages; empty before the export.
        onnx_difference: By name: the largest difference between a result of the ONNX file and of PyTorch.
    """

    user_tower: UserTower
    item_tower: ItemTower | None = None
    ranker: Ranker | None = None
    features: FeatureEncoder | None = None
    onnx: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    onnx_difference: Mapping[str, float] = field(default_factory=dict)

    def by_name(self) -> dict[str, Network]:
        """Return the networks that there are."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: network for name, network in found.items() if network is not None}
