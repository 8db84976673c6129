import importlib.util
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from service.errors import RunError
from service.executors.code_version import code_version
from service.executors.ray_connection import (
    VERSION_LABEL,
    connected,
    refuse_other_versions,
    usable_machines,
    workers_of,
)


def test_machines_with_other_code_are_refused() -> None:
    """And such as were not started by `recollect cluster`, whose code is unknown."""
    refuse_other_versions([("a", code_version()), ("b", code_version())])
    with pytest.raises(RunError, match=rf"^b runs Recollect 0\.1\.0-1234 and the machine .* {code_version()}: install"):
        refuse_other_versions([("b", "0.1.0-1234"), ("a", code_version())])
    with pytest.raises(RunError, match=r"^c was not made a part of the cluster by `recollect cluster`"):
        refuse_other_versions([("c", None)])


def test_machines_of_one_name_are_looked_at_each() -> None:
    """As of one image; the address says which of them it is."""
    row = {"NodeManagerHostname": "debian", "Alive": True, "Resources": {"CPU": 2.0}}
    other = {**row, "NodeID": "1", "NodeManagerAddress": "10.0.0.1", "Labels": {VERSION_LABEL: "0.1.0-1234"}}
    same = {**row, "NodeID": "2", "NodeManagerAddress": "10.0.0.2", "Labels": {VERSION_LABEL: code_version()}}
    lost = {**other, "NodeID": "3", "Alive": False}
    unknown = {**other, "NodeID": "4", "Labels": {}}
    for rows in ([other, same], [same, other]):
        with pytest.raises(RunError, match=r"^debian \(10\.0\.0\.1\) runs Recollect 0\.1\.0-1234"):
            workers_of(SimpleNamespace(nodes=lambda rows=rows: rows))
    assert workers_of(SimpleNamespace(nodes=lambda: [same, lost])) == 2
    assert usable_machines(SimpleNamespace(nodes=lambda: [other, same, lost, unknown])) == [("2", 2)]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make cluster")
def test_a_head_that_does_not_answer_is_named(free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(RunError, match=rf"^No cluster answers at {address} \(.*refused\); start its head with"):
        connected(address, "127.0.0.1")
