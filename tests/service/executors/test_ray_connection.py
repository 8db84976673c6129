import importlib.util
from collections.abc import Callable

import pytest

from service.errors import RunError
from service.executors.code_version import code_version
from service.executors.ray_connection import connected, refuse_other_versions


def test_machines_with_other_code_are_refused() -> None:
    """And such as were not started by `recollect cluster`, whose code is unknown."""
    refuse_other_versions({"a": code_version(), "b": code_version()})
    with pytest.raises(RunError, match=rf"^b runs Recollect 0\.1\.0-1234 and this machine {code_version()}: install"):
        refuse_other_versions({"a": code_version(), "b": "0.1.0-1234"})
    with pytest.raises(RunError, match=r"^c was not made a part of the cluster by `recollect cluster`"):
        refuse_other_versions({"c": None})


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make cluster")
def test_a_head_that_does_not_answer_is_named(free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(RunError, match=rf"^No cluster answers at {address} \(.*refused\); start its head with"):
        connected(address, "127.0.0.1")
