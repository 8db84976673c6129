"""Nodes for tests: they skip on a machine that cannot make namespaces, and fail there in CI."""

import os

import pytest

from ops.nodes import namespace


def require_nodes() -> None:
    """Skip the test, with the reason, if this process cannot make nodes; in CI let it fail instead."""
    reason = namespace.refusal()
    if reason is not None and os.environ.get("CI") != "true":
        pytest.skip(reason)
