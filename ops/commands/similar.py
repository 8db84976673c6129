"""`recollect similar ITEM`: the items nearest to an item, from the active model, without a server."""

import json
import os
from typing import Annotated

import typer

from ops.offline.list_text import list_text, named
from ops.options.list_options import FieldsOption, FilterOption, LengthOption, field_names
from ops.options.shared_options import JsonOption
from service.config import from_env


def command(
    item_id: Annotated[str, typer.Argument(metavar="ITEM")],
    *,
    n: LengthOption = 10,
    item_filter: FilterOption = None,
    fields: FieldsOption = "title",
    as_json: JsonOption = False,
) -> int:
    """Print the items nearest to an item, made from the files of this installation."""
    from ops.offline.offline_lists import OfflineLists
    from service.lists.list_request import ListRequest

    names = field_names(fields)
    lists = OfflineLists(from_env(os.environ))
    answer = lists.answer(ListRequest(n, similar_to=item_id, fields=names, filter=item_filter))
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    print(f"Nearest to {named(item_id, lists.record(item_id).title)}, by {answer['model']}.")
    print(list_text(answer, names))
    if answer["shortfall"] is not None:
        print(answer["shortfall"]["reason"])
    return 0
