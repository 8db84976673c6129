"""The route of the candidates service: the items nearest to a vector."""

from aiohttp import web

from service.api import candidate_wire, wire
from service.api.reply import Reply
from service.candidates.query import find
from service.candidates.query_wire import query_of_body
from service.errors import OtherSpace
from service.lists.pipeline import ListModel
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT


async def candidates(request: web.Request) -> web.Response:
    """POST /v1/candidates: the best items for a vector of the model's embedding space."""
    request_inputs.require_query_fields(request, ())
    body = wire.decode(candidate_wire.CandidatesRequest, await request_inputs.read_body(request))
    context = request.app[CONTEXT]
    found = context.store.of_space(body.embedding_space)
    if found is None:
        model = context.store.model
        raise OtherSpace(
            f"The embedding space of {model.version} is {model.embedding_space}, and the vector is of "
            f"{body.embedding_space}."
        )
    snapshot, catalogue = found
    if len(body.vector) != snapshot.n_factors:
        raise wire.invalid_field("vector", f"must have {snapshot.n_factors} numbers, one for each factor of the model")
    ranking = find(ListModel(snapshot, catalogue, context.filter_masks), query_of_body(body))
    id_of = snapshot.items.id_of
    answer: candidate_wire.Candidates = {
        "model": snapshot.version,
        "embedding_space": snapshot.embedding_space,
        "catalogue_watermark": catalogue.recorded_watermark,
        "item_ids": [id_of[row] for row in ranking.rows.tolist()],
        "scores": ranking.scores.round(6).tolist(),
    }
    return Reply(wire.encode(answer))
