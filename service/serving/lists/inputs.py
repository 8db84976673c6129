"""From the checked body of a request to the list that it asks for."""

from service.api.list_bodies import RecommendationsRequest
from service.lists.list_request import Boost, ListRequest, Pin
from service.lists.sessions import SessionItem


def list_request_of(body: RecommendationsRequest) -> ListRequest:
    """Return the list that a body asks for."""
    return ListRequest(
        body.n,
        body.user_id,
        body.offset,
        tuple(body.exclude),
        body.fields,
        include=None if body.include is None else tuple(body.include),
        seeds=tuple(body.seeds),
        session=tuple(SessionItem(item.item_id, item.type, item.value) for item in body.session),
        user_features=body.user_features or None,
        page_token=body.page_token,
        filter=body.filter,
        boosts=tuple(Boost(boost.filter, boost.factor) for boost in body.boosts),
        pins=tuple(Pin(pin.item_id, pin.position) for pin in body.pins),
        impression_factor=body.impression_factor,
        explain=body.explain,
        diversity=body.diversity,
        deadline_ms=body.deadline_ms,
    )
