"""The answers that /openapi.json promises.

Every answer must be a documented status with a body of the described shape, a problem for every error, and never an
internal error.
"""

from typing import Any

import orjson
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # openapi-spec-validator brings it, without stubs

from service.api.openapi import build
from tests.support.replicas.listening_replica import ListeningReplica, RawAnswer

DOCUMENT = build()


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


PROBLEM = validator({"$ref": "#/components/schemas/Problem"})


def judge(replica: ListeningReplica, answer: RawAnswer, operation: dict[str, Any] | None) -> None:
    """Check an answer against the OpenAPI document; the operation is None if the request matches no route."""
    assert answer.status < 500 or answer.status == 503, answer
    assert replica.faults == 0
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer.headers, answer
    assert b"\r\nCache-Control: no-store\r\n" in answer.headers, answer
    assert answer.body.endswith(b"\n"), answer
    if answer.status >= 400:
        assert answer.kind == "application/problem+json", answer
        problem = orjson.loads(answer.body)
        PROBLEM.validate(problem)
        assert problem["status"] == answer.status
        assert (answer.status == 422) is ("errors" in problem), answer
        # 400 and 404 also answer requests that match no route.
        assert operation is None or answer.status in {400, 404} or str(answer.status) in operation["responses"], answer
        return
    assert operation is not None, answer
    content = operation["responses"][str(answer.status)]["content"]
    assert answer.kind in content, answer
    if answer.kind == "application/json":
        validator(content[answer.kind]["schema"]).validate(orjson.loads(answer.body))
