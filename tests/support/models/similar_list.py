"""Lists of similar items, as they are served."""

from service.catalogue.served_model import ServedModel
from service.lists.filters.masks import FilterMasks
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, MadeList, make_list
from service.models.snapshot import ModelSnapshot


def similar_list(snapshot: ModelSnapshot, item_row: int, n: int) -> MadeList:
    """Return the items nearest to one."""
    model = ListModel(snapshot, ServedModel(snapshot).catalogue, FilterMasks())
    return make_list(model, ListRequest(n, similar_to=snapshot.items.id_of[item_row]), None, 0.0)
