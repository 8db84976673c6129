"""A query of candidates as the body of `POST /v1/candidates`, and back, to the last bit (pure)."""

import time
from datetime import datetime
from typing import Any

import numpy as np

from service.api import candidate_wire, wire
from service.candidates.query import CandidateQuery
from service.lists.list_request import Boost
from telemetry.ids import rfc3339_ms


def body_of(query: CandidateQuery, embedding_space: str | None) -> bytes:
    """Return the body that asks for a query; `query_of_body` undoes it to the last bit."""
    body: dict[str, Any] = {
        "vector": query.vector.tolist(),
        "embedding_space": embedding_space,
        "n": query.n,
        "exclude": query.exclude,
        "constant": query.constant,
        "available_at": rfc3339_ms(query.at_s),
    }
    if query.filter is not None:
        body["filter"] = query.filter
    if query.boosts:
        body["boosts"] = [boost._asdict() for boost in query.boosts]
    if query.factors:
        body["factors"] = query.factors
    return wire.encode(body)


def is_within_limits(query: CandidateQuery, body: bytes, limit_bytes: int) -> bool:
    """Whether the route takes a query, whose body this is.

    A list of a user who has seen thousands of items, or a page far down, may ask for more.
    """
    return (
        len(body) <= limit_bytes
        and query.n <= candidate_wire.CANDIDATES_LIMIT
        and len(query.exclude) <= candidate_wire.EXCLUDE_LIMIT
        and len(query.factors) <= wire.IDS_LIMIT
    )


def query_of_body(body: candidate_wire.CandidatesRequest) -> CandidateQuery:
    """Return the query that a checked body asks for; without a time, for now."""
    moment_s = time.time() if body.available_at is None else datetime.fromisoformat(body.available_at).timestamp()
    return CandidateQuery(
        np.array(body.vector, dtype=np.float32),
        body.constant,
        body.n,
        moment_s,
        body.exclude,
        body.filter,
        tuple(Boost(boost.filter, boost.factor) for boost in body.boosts),
        body.factors,
    )
