"""Whether a published model may be activated, by what its training found out (pure)."""

from typing import Any

_NDCG = "ndcg@10"


def reason_against(manifest: dict[str, Any]) -> str | None:
    """Return why a version must not be activated without being forced, as the end of a sentence; None if it may.

    Its training has held it back (`held_back` in the measures), or its lists lose to popularity on its hold-out. The
    latter is compared here, because older releases recorded both figures and held no such model back.
    """
    measures = manifest.get("measures")
    if not isinstance(measures, dict):
        return None
    held_back = measures.get("held_back")
    if isinstance(held_back, str):
        return held_back
    lists, baseline = measures.get(_NDCG), measures.get("baseline")
    popularity = baseline.get(_NDCG) if isinstance(baseline, dict) else None
    if isinstance(lists, float) and isinstance(popularity, float) and lists < popularity:
        return loses_to_popularity(lists, popularity)
    return None


def loses_to_popularity(ndcg: float, popularity: float) -> str:
    """Return the reason not to serve lists that are worse than popularity, as the end of a sentence."""
    return (
        f"its lists are worse than lists by popularity: its NDCG@10 is {ndcg:.4f}, and that of popularity "
        f"{popularity:.4f}"
    )
