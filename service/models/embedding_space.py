"""The embedding space of a published model: whether vectors of users of one version may meet the items of another.

Two versions have the same space if their towers are the same, or, without an item tower, their item tables. A product
of vectors of two spaces is a number without meaning, so that services of different spaces refuse each other.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

# The arrays that a product with a user's vector depends on.
_ITEM_ARRAYS: Final = ("item_ids", "item_id_offsets", "item_factors", "item_bias")
_TOWERS: Final = ("user_tower", "item_tower")
_LENGTH: Final = 16


def embedding_space(manifest: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of a version's embedding space from the checksums in its manifest.

    Args:
        manifest: The manifest; empty for a model that was not published.

    Returns:
        16 hexadecimal digits; None for a model without factors, which has no such space, and for an unpublished one.
    """
    if not manifest.get("n_factors"):
        return None
    networks, arrays = manifest.get("networks") or {}, manifest.get("arrays") or {}
    # Towers compute the items, new ones included, so that versions with other items have the same space.
    described, names = (networks, _TOWERS) if "item_tower" in networks else (arrays, _ITEM_ARRAYS)
    try:
        checksums = [str(described[name]["sha256"]) for name in names]
    except (KeyError, TypeError):
        return None
    text = "\n".join((str(manifest["n_factors"]), *checksums))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
