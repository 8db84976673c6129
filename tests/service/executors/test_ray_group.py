from typing import Any

import pytest

from service.errors import RunError
from service.executors.executor import WorkerEvent
from service.executors.group_run import GroupRun
from service.executors.ray_group import RayCall, RayGroup
from service.executors.ray_values import pack
from service.executors.worker_book import Place

ray = pytest.importorskip("ray", reason="Ray is not installed: make cluster")
LOSSES = [
    ray.exceptions.RayActorError(),
    ray.exceptions.ActorUnschedulableError("The node that the actor has to run on is dead."),
    ray.exceptions.GetTimeoutError("Get timed out."),
]
OTHERS = [
    ray.exceptions.OutOfMemoryError("The worker used most."),
    ray.exceptions.RuntimeEnvSetupError("No disk is left."),
    ray.exceptions.RaySystemError("A socket is gone."),
]
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
        self._places = [Place("a", 7)]

    def _start(self, ray: Any) -> dict[Any, tuple[int, Any]]:
        del ray
        if self._at_start is not None:
            raise self._at_start
        return {RUN: (0, "its result")}

    def _take_mail(self) -> None:
        pass


def ended_by(error: Exception, monkeypatch: pytest.MonkeyPatch) -> StartedGroup:
    def get(ref: str) -> None:
        assert ref == RUN
        raise error

    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    return StartedGroup(None)


@pytest.mark.parametrize("error", LOSSES, ids=lambda error: type(error).__name__)
def test_a_process_that_is_gone_or_has_no_machine_any_more_is_a_loss(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After which the group is started again."""
    group = ended_by(error, monkeypatch)
    for lost, result in (StartedGroup(error).result(), group.result()):
        assert lost is not None
        assert lost.startswith("A ")
        assert result is None
    assert [(event.state, event.task) for event in group.events] == [("died", 0)]


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_another_error_of_ray_ends_the_command_with_a_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.executors.ray_connection._lost", lambda ray, error: f"Lost: {error}")
    for group in (StartedGroup(error), ended_by(error, monkeypatch)):
        with pytest.raises(RunError, match=r"^(A task was ended by Ray, because|Lost: )"):
            group.result()
