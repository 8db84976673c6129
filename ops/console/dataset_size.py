"""How large a data set is, in words; pure."""

from typing import Any


def dataset_size(data: dict[str, Any]) -> str:
    """Return "N ratings by N users of N items".

    Args:
        data: What `service.training.evaluation.comparison.describe` returned, or a manifest's `data`.
    """
    return f"{data['n_ratings']:,} {interaction_noun(data)} by {data['n_users']:,} users of {data['n_items']:,} items"


def interaction_noun(data: dict[str, Any]) -> str:
    """Return "ratings", or "interactions" of a set in which nothing is rated."""
    return "interactions" if data.get("rated_share") == 0 else "ratings"
