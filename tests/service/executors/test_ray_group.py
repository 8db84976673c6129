"""What becomes of Ray's errors in a group.

In a process of its own: Ray reads its settings when it is imported, and other tests connect with theirs.
"""

import importlib.util
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from service.errors import RunError
from service.executors import ray_connection
from service.executors.executor import WorkerEvent
from service.executors.group_run import GroupRun
from service.executors.machine import Machine
from service.executors.ray_group import RayCall, RayGroup
from service.executors.ray_values import pack
from service.executors.worker_book import Place

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make cluster")
LOSSES = ("RayActorError", "ActorUnschedulableError", "GetTimeoutError")
OTHERS = ("OutOfMemoryError", "RuntimeEnvSetupError", "RaySystemError")
RUN = "the part of the first member"


class StartedGroup(RayGroup):
    """A group of one whose start, or whose end, is an error of Ray.

    Attributes:
        events: What was reported.
    """

    def __init__(self, at_start: Exception | None) -> None:
        self.events: list[WorkerEvent] = []
        super().__init__(RayCall(pack, pack(()), {}), GroupRun(stage="fit"), 1, self.events.append)
        self._at_start = at_start
        self._places = [Place(Machine("a", "192.0.2.1"), 7)]

    def _start(self, ray: Any) -> dict[Any, tuple[int, Any]]:
        del ray
        if self._at_start is not None:
            raise self._at_start
        return {RUN: (0, "its result")}

    def _take_mail(self) -> None:
        pass


def ends(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return how a group ends with each error, at its start and later, and the states that it reported."""
    import ray

    found: list[tuple[str, list[str]]] = []
    for name in names:
        error = getattr(ray.exceptions, name)(*([] if name == "RayActorError" else ["It is so."]))

        def get(ref: str, error: Exception = error) -> None:
            assert ref == RUN
            raise error

        ray.wait, ray.get = lambda refs, **_: (refs, []), get
        ray_connection._lost = lambda ray, error: f"Lost: {error}"
        for group in (StartedGroup(error), StartedGroup(None)):
            try:
                lost, result = group.result()
                end = f"lost, {result}: {lost}"
            except RunError as raised:
                end = f"raised: {raised}"
            found.append((end, [str(event.state) for event in group.events]))
    return found


@pytest.fixture(scope="module")
def found() -> list[tuple[str, list[str]]]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        return other.submit(ends, (*LOSSES, *OTHERS)).result()


def test_a_process_that_is_gone_or_has_no_machine_any_more_is_a_loss(found: list[tuple[str, list[str]]]) -> None:
    """After which the group is started again."""
    for at_start, later in zip(found[0:6:2], found[1:6:2], strict=True):
        assert at_start[0].startswith("lost, None: A ")
        assert later == (at_start[0], ["died"])


def test_another_error_of_ray_ends_the_command_with_a_sentence(found: list[tuple[str, list[str]]]) -> None:
    for end, _ in found[6:8]:
        assert end.startswith("raised: A task was ended by Ray, because its machine")
    assert len(found) == 12
    for end, _ in found[8:]:
        assert end.startswith("raised: Lost: ")
