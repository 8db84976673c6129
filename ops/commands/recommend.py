"""`recollect recommend USER`: the list of a user from the active model and the live state, without a server."""

import json
import os
from typing import Annotated

import typer

from ops.offline.list_text import list_text
from ops.options.list_options import (
    ExplainOption,
    FeatureOption,
    FieldsOption,
    FilterOption,
    LengthOption,
    features,
    field_names,
)
from ops.options.shared_options import JsonOption
from service.config import from_env


def command(
    user_id: Annotated[str | None, typer.Argument(metavar="[USER]", help="Without it, the popular items.")] = None,
    *,
    n: LengthOption = 10,
    item_filter: FilterOption = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="ITEM", help="May be repeated.")] = None,
    feature: FeatureOption = None,
    fields: FieldsOption = "title",
    explain: ExplainOption = 0,
    as_json: JsonOption = False,
) -> int:
    """Print a user's list, made from the files of this installation as a replica would; it is recorded nowhere."""
    # Imported here: `--help` needs no numerical library.
    from ops.offline.offline_lists import OfflineLists
    from service.lists.list_request import ListRequest

    names = field_names(fields)
    lists = OfflineLists(from_env(os.environ))
    request = ListRequest(
        n,
        user_id,
        exclude=tuple(exclude or ()),
        fields=names,
        user_features=features(feature or ()),
        filter=item_filter,
        explain=explain,
    )
    answer = lists.answer(request)
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    freshness = answer["freshness"]
    use = answer.get("user_features")
    if use is not None and use["unknown"]:
        print(f"{answer['model']} does not know these features, or their values: {', '.join(use['unknown'])}.")
    if user_id is None and use is not None and use["used"]:
        print(f"A visitor with these features, by {answer['model']}.")
    elif user_id is None:
        print(f"The popular items, by {answer['model']}.")
    elif all(item["source"] == "popular" for item in answer["items"]):
        print(f"{answer['model']} knows nothing of user {user_id}: the popular items.")
    else:
        events = freshness["events_applied"]
        since = "" if not events else f", with {events} {'event' if events == 1 else 'events'} since"
        print(f"User {user_id}, by {answer['model']}{since}, as of {freshness['as_of']}.")
    print(list_text(answer, names))
    if answer["shortfall"] is not None:
        print(answer["shortfall"]["reason"])
    return 0
