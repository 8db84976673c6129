"""`recollect predict USER ITEM`: what the active model says of one user and one item, without a server."""

import json
import os
from typing import Annotated, Any

import typer

from ops.offline.list_text import named
from ops.options.shared_options import JsonOption
from service.config import from_env


def command(
    user_id: Annotated[str, typer.Argument(metavar="USER")],
    item_id: Annotated[str, typer.Argument(metavar="ITEM")],
    *,
    as_json: JsonOption = False,
) -> int:
    """Print the predicted rating, or the score of a model that only ranks, and the item's place among all items."""
    from ops.offline.offline_lists import OfflineLists

    lists = OfflineLists(from_env(os.environ))
    snapshot = lists.snapshot
    found = lists.predict(user_id, item_id)
    title = lists.record(item_id).title
    scale = snapshot.rating_scale
    rating = None
    if scale is not None and _predicts_ratings(snapshot.manifest):
        rating = min(max(found.score, scale.low), scale.high)
    if as_json:
        print(
            json.dumps(
                {
                    "user_id": user_id,
                    "item_id": item_id,
                    "title": title,
                    "model": snapshot.version,
                    "rating": None if rating is None else round(rating, 6),
                    "score": round(found.score, 6),
                    "place": found.place,
                    "n_items": found.n_items,
                    "has_seen": found.has_seen,
                },
                ensure_ascii=False,
            )
        )
        return 0
    if rating is None or scale is None:
        says = f"score {found.score:.4g}, which is no rating"
    else:
        says = f"rating {rating:.2f} on the scale from {scale.low:g} to {scale.high:g}"
    seen = " The user has seen it, so that no list shows it." if found.has_seen else ""
    print(f"User {user_id} and {named(item_id, title)}, by {snapshot.version}: {says}.")
    print(f"Place {found.place:,} of {found.n_items:,} items for this user.{seen}")
    return 0


def _predicts_ratings(manifest: dict[str, Any]) -> bool:
    """Whether a model was measured by the error of its ratings, which those that only rank have none of."""
    measures = manifest.get("measures")
    return isinstance(measures, dict) and isinstance(measures.get("rmse"), float)
